"""A workflow in which nothing can happen any more says so, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import transaction

from motoko_core.engine.watch import Watch
from motoko_core.errors import WorkflowStalled
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.driving import Clock, Firings, ids, settle

#: More than the ticks after which a quiet workflow is given up.
LONG = 8


async def quiet(
    workflow: Workflow, clock: Clock, main: Callable[..., Awaitable[Any]], ticks: int = LONG
) -> BaseException | None:
    """Let time pass; answer what the workflow ended with, None if it is still alive (and cancelled)."""
    workflow.orchestrator_function = main
    execution = asyncio.create_task(workflow.execute_async())
    await settle()
    for _ in range(ticks):
        if execution.done():
            break
        await clock.tick()
    if not execution.done():
        execution.cancel()
        await asyncio.wait([execution], timeout=TIMEOUT_S)
        return None
    return execution.exception()


async def test_it_says_what_everybody_waits_for(workflow: Workflow, clock: Clock) -> None:
    finished, failed, awaited = create_tasks(workflow, x=[1.0, 2.0, 3.0])
    set_state(workflow, finished, "FINISHED")
    reason = {"reason": "EXIT_CODE", "exit_code": 7, "stderr": "no such file"}
    set_state(workflow, failed, "FAILED", motoko_failure=reason)
    set_state(workflow, awaited, "FINISHED")

    def is_large(run: Any, job: Any) -> bool:
        return bool(job.x > 100)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("start", task="add", event="state = FINISHED", f=Firings())
        workflow.add_action("large", task="mult", event=is_large, f=Firings())
        await workflow.mult.select("state = NEVER")

    error = await quiet(workflow, clock, main)
    assert isinstance(error, WorkflowStalled)
    assert error.exit_code == 1
    for part in [
        "'start' on add waits for \"state = FINISHED\"",
        "'large' on mult waits for run filter is_large",
        "main waits for a task of mult with state = NEVER",
        f"{failed} is FAILED (EXIT_CODE, exit code 7)",
        "no such file",
        "mult: 1 FAILED, 2 FINISHED",
        "add: no runs",
        "wait_forever",
    ]:
        assert part in str(error)


async def test_an_action_that_fires_again_and_again_without_effect_is_no_life(
    workflow: Workflow, clock: Clock
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")
    fired = Firings()

    async def dummy(runs: Any, task_manager: Any) -> None:
        await asyncio.sleep(0)
        fired(runs=runs, task_manager=task_manager)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("dummy", task="mult", event="state = FINISHED", f=dummy)
        workflow.add_action("again", task="mult", event=lambda workflow, task_manager: True, f=Firings())

    assert isinstance(await quiet(workflow, clock, main), WorkflowStalled)
    assert len(fired.seen) >= 3


async def test_an_action_that_was_replaced_is_neither_alive_nor_mentioned(
    workflow: Workflow, clock: Clock
) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=lambda: False, f=Firings())
        await settle()
        workflow.add_action("it", task="mult", event="state = FINISHED", f=Firings())

    error = await quiet(workflow, clock, main)
    assert isinstance(error, WorkflowStalled)
    assert "function" not in str(error)


async def test_an_outside_condition_that_has_fired_for_good_is_no_life(
    workflow: Workflow, clock: Clock
) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("once", task="mult", event=lambda: True, f=Firings(), once_per_run=True)

    assert isinstance(await quiet(workflow, clock, main), WorkflowStalled)


async def main_with_an_active_task(workflow: Workflow) -> None:
    workflow.mult.createTask(x=1.0)
    workflow.add_action("done", task="mult", event="state = FINISHED", f=Firings())


async def main_with_an_outside_condition(workflow: Workflow) -> None:
    workflow.add_action("outside", task="mult", event=lambda: False, f=Firings())


async def main_that_sleeps(workflow: Workflow) -> None:
    workflow.add_action("done", task="mult", event="state = FINISHED", f=Firings())
    await asyncio.sleep(3600)


async def main_with_a_callback_that_sleeps(workflow: Workflow) -> None:
    async def sleeps() -> None:
        await asyncio.sleep(3600)

    workflow.add_action("sleeps", task="mult", event=lambda workflow, task_manager: True, f=sleeps)


async def main_that_waits_forever(workflow: Workflow) -> None:
    workflow.wait_forever = True
    workflow.add_action("done", task="mult", event="state = FINISHED", f=Firings())


@pytest.mark.parametrize(
    "main",
    [
        main_with_an_active_task,
        main_with_an_outside_condition,
        main_that_sleeps,
        main_with_a_callback_that_sleeps,
        main_that_waits_forever,
    ],
)
async def test_it_is_not_stalled(workflow: Workflow, clock: Clock, main: Any) -> None:
    assert await quiet(workflow, clock, main) is None


async def test_each_change_begins_a_new_wait(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")

    async def main(workflow: Workflow) -> None:
        workflow.add_action("done", task="mult", event="state = NEVER", f=Firings())

    workflow.orchestrator_function = main
    execution = asyncio.create_task(workflow.execute_async())
    await settle()
    for number in range(LONG):
        set_state(workflow, task, "FINISHED", note=str(number))
        await settle()
        await clock.tick()
    assert not execution.done()
    await clock.tick(LONG)
    with pytest.raises(WorkflowStalled):
        await asyncio.wait_for(execution, TIMEOUT_S)


async def test_tasks_without_a_launcher_are_mentioned(
    workflow: Workflow, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await quiet(workflow, clock, main_with_an_active_task) is None
    assert caplog.text.count("no launcher is at work") == 1


async def test_filters_that_read_the_databases_have_been_asked_about_every_run_since_the_last_change(
    workflow: Workflow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep is due when the last one took five percent of the time; that may be many ticks later."""
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")
    workflow.vars.go = False
    transaction.commit()
    among = Watch.among

    def slow(watch: Watch, run_ids: Any) -> Any:
        clock.now += 1.0
        return among(watch, run_ids)

    monkeypatch.setattr(Watch, "among", slow)
    fired = Firings()

    def may_go(run: Any, job: Any) -> bool:
        return bool(workflow.vars.go)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("go", task="mult", event=may_go, f=fired)
        await settle()
        workflow.vars.go = True

    error = await quiet(workflow, clock, main, ticks=1000)
    assert fired.seen[:1] == [ids([task])]
    assert isinstance(error, WorkflowStalled)
