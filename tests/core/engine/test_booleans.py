"""Boolean triggers: their firings never overlap, and the condition is asked again before each turn."""

from __future__ import annotations

import asyncio
from typing import Any

from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate
from tests.driving import Clock, Firings, play, settle


async def test_firings_of_one_action_never_overlap(workflow: Workflow, clock: Clock) -> None:
    release = asyncio.Semaphore(0)
    at_work: list[str] = []
    order: list[str] = []

    async def slow(task_manager: Any) -> None:
        at_work.append(task_manager.study)
        order.append(task_manager.study)
        assert len(at_work) == 1
        await release.acquire()
        at_work.remove(task_manager.study)

    async def script() -> None:
        workflow.add_action("both", event=lambda: True, f=slow)
        await settle()
        await clock.tick(3)
        assert order == ["mult"]
        release.release()
        await settle()
        assert order == ["mult", "add"]
        await clock.tick(3)
        assert order == ["mult", "add"]
        release.release()
        await settle()
        await clock.tick()
        assert order == ["mult", "add", "mult"]
        release.release()
        release.release()

    await play(workflow, script)


async def test_the_condition_is_evaluated_again_before_the_next_turn(
    workflow: Workflow, clock: Clock
) -> None:
    fired: list[str] = []

    def fill(workflow: Workflow, task_manager: Any) -> None:
        fired.append(task_manager.study)
        workflow.add.createTask(x=1.0)

    async def script() -> None:
        # True for both task managers at first, and for none after the first turn.
        workflow.add_action("empty", event=lambda workflow, task_manager: not workflow.add.select(), f=fill)
        await settle()
        await clock.tick(2)
        assert fired == ["mult"]

    await play(workflow, script)


async def test_a_condition_that_stays_true_fires_once_per_poll_interval(
    workflow: Workflow, clock: Clock
) -> None:
    fired = Firings()

    async def script() -> None:
        workflow.add_action(
            "on", task="mult", event=lambda workflow, task_manager: bool(workflow.add.select()), f=fired
        )
        create_tasks(workflow, "add", x=1.0)
        await settle()
        assert fired.take() == ["mult"]
        create_tasks(workflow, "add", x=2.0)
        await settle()
        assert fired.take() == []
        await clock.advance(0.9 * workflow.configuration.poll_interval)
        assert fired.take() == []
        await clock.advance(0.1 * workflow.configuration.poll_interval)
        assert fired.take() == ["mult"]

    await play(workflow, script)


async def test_a_condition_that_was_false_for_a_while_fires_at_once(workflow: Workflow, clock: Clock) -> None:
    on = True
    fired = Firings()

    async def script() -> None:
        nonlocal on
        workflow.add_action("on", task="mult", event=lambda workflow, task_manager: on, f=fired)
        await settle()
        assert fired.take() == ["mult"]
        for on in (False, True):
            create_tasks(workflow, x=float(on))  # any change makes the engine look
            await settle()
        assert fired.take() == ["mult"]

    await play(workflow, script)


async def test_a_firing_that_awaits_leaves_other_actions_alone(workflow: Workflow, clock: Clock) -> None:
    fired = Firings()
    for_ever = asyncio.Event()

    async def script() -> None:
        workflow.add_action("waits", task="mult", event=lambda: True, f=lambda: for_ever.wait())
        workflow.add_action("fires", task="mult", event=lambda: True, f=fired)
        await settle()
        await clock.tick(2)
        assert fired.take() == ["mult"] * 3
        for_ever.set()

    await play(workflow, script)


async def test_once_per_run_fires_once_per_task_manager(workflow: Workflow, clock: Clock) -> None:
    fired = Firings()

    async def script() -> None:
        workflow.add_action("once", event=lambda: True, f=fired, once_per_run=True)
        await settle()
        await clock.tick(2)
        assert fired.take() == ["mult", "add"]

    await play(workflow, script)
    again = Firings()

    async def main(workflow: Workflow) -> None:
        workflow.add_action("once", event=lambda: True, f=again, once_per_run=True)
        await settle()
        await clock.tick(2)
        workflow.finished = True

    await orchestrate(workflow, main)
    assert again.take() == []
