"""How a workflow ends when all goes well, and how it goes on after that."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, orchestrate, set_state, states
from tests.driving import Clock, Firings, ids, play, settle, until


async def test_main_that_returns_with_no_action_ends_it(workflow: Workflow) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert list(states(workflow).values()) == ["CREATED"]


async def test_main_that_returns_with_an_action_does_not_end_it(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    def finish(workflow: Workflow) -> None:
        workflow.finished = True

    def main(workflow: Workflow) -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=finish)
        asyncio.get_running_loop().call_soon(set_state, workflow, task, "FINISHED")

    await orchestrate(workflow, main)
    assert workflow.finished


async def test_error_handlers_alone_do_not_keep_it_alive(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler()
        set_state(workflow, task, "FINISHED")

    await orchestrate(workflow, main)


async def test_finished_in_main(workflow: Workflow, clock: Clock) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("never", task="mult", event="state = FINISHED", f=Firings())
        workflow.mult.createTask(x=1.0)
        workflow.finished = True
        workflow.add.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert len(states(workflow)) == len(states(workflow, "add")) == 1


async def test_finished_while_another_firing_waits_for_a_task(workflow: Workflow, clock: Clock) -> None:
    ended: list[str] = []

    async def waits(workflow: Workflow) -> None:
        runs = workflow.add.createTask(x=1.0)
        await workflow.mult.createTask(x=1.0)
        ended.append(f"went on with {runs}")

    async def waits_and_writes(workflow: Workflow) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await workflow.mult.createTask(x=2.0)
        workflow.add.createTask(x=2.0)
        ended.append("cancelled")

    def finish(workflow: Workflow) -> None:
        workflow.finished = True

    async def main(workflow: Workflow) -> None:
        workflow.add_action("waits", task="mult", event=lambda: True, f=waits)
        workflow.add_action("writes", task="mult", event=lambda: True, f=waits_and_writes)
        await settle()
        workflow.add_action("finish", task="mult", event=lambda: True, f=finish)

    await orchestrate(workflow, main)
    assert ended == ["cancelled"]
    # Up to the checkpoint it is committed; what comes after it is not.
    assert len(states(workflow, "add")) == 1


async def test_a_callback_at_work_gets_its_commit(workflow: Workflow, clock: Clock) -> None:
    release = asyncio.Event()

    async def works(workflow: Workflow) -> None:
        await release.wait()
        workflow.add.createTask(x=1.0)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works)
        await settle()
        workflow.finished = True
        asyncio.get_running_loop().call_later(0.01, release.set)

    await orchestrate(workflow, main)
    assert len(states(workflow, "add")) == 1


async def test_a_callback_that_does_not_end_is_cancelled_after_the_grace_period(
    workflow: Workflow, clock: Clock
) -> None:
    async def works(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)
        await asyncio.Event().wait()

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works)
        await settle()
        workflow.finished = True

    workflow.orchestrator_function = main
    execution = asyncio.create_task(workflow.execute_async())
    await until(lambda: workflow.finished)
    await settle()
    assert not execution.done()
    await clock.advance(60)
    await asyncio.wait_for(execution, TIMEOUT_S)
    assert states(workflow, "add") == {}


@pytest.mark.parametrize(("code", "tasks"), [(0, 1), (None, 1), (3, 0)])
@pytest.mark.parametrize("where", ["main", "a callback"])
async def test_sys_exit(workflow: Workflow, where: str, code: Any, tasks: int) -> None:
    def leave(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)
        sys.exit(code)

    async def main(workflow: Workflow) -> None:
        if where == "main":
            leave(workflow)
        workflow.add_action("leave", task="mult", event=lambda: True, f=leave)

    workflow.orchestrator_function = main
    with pytest.raises(SystemExit) as leaving:
        await workflow.execute_async()
    assert leaving.value.code == code
    assert len(states(workflow, "add")) == tasks


async def test_it_goes_on_where_it_was_when_it_is_executed_again(workflow: Workflow, clock: Clock) -> None:
    fired = Firings()

    async def script() -> None:
        assert not workflow.finished
        assert workflow.actions == {}
        ((run, _job),) = workflow.mult.createTask(x=1.0)
        number = run.id
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired, once_per_run=True)
        await settle()
        if fired_before:
            assert fired.take() == [[number]]

    fired_before = False
    await play(workflow, script)
    assert workflow.finished
    ((number, state),) = states(workflow).items()
    assert (state, fired.take()) == ("CREATED", [])
    set_state(workflow, f"mult.{number}", "FINISHED")
    fired_before = True
    await play(workflow, script)
    assert len(states(workflow)) == 1
    assert ids([f"mult.{number}"]) == [number]


@pytest.mark.parametrize("busy", ["sleeping", "waiting", "clean up"])
async def test_ctrl_c_undoes_what_is_under_way_and_can_be_resumed(
    workflow: Workflow, clock: Clock, busy: str
) -> None:
    begun = asyncio.Event()

    async def works(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)
        begun.set()
        if busy == "waiting":
            workflow.mult.createTask(x=3.0)
            await workflow.mult.createTask(x=2.0)
        try:
            await asyncio.Event().wait()
        finally:
            workflow.add.createTask(x=2.0)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works)
        workflow.mult.createTask(x=1.0)
        await asyncio.Event().wait()

    workflow.orchestrator_function = main
    execution = asyncio.create_task(workflow.execute_async())
    await begun.wait()
    await settle()
    execution.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(execution, TIMEOUT_S)
    assert len(states(workflow, "add")) == (1 if busy == "waiting" else 0)
    assert len(states(workflow, "mult")) == (2 if busy == "waiting" else 0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=fired)
        await settle()

    await play(workflow, script)
    assert fired.take() == ["mult"]
