"""A script may say itself that its run failed; why, is known when the launcher has seen its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from motoko_core.errors import RunFailed, WorkflowAborted, WorkflowStalled
from motoko_core.interfaces import ErrorHandler, Failure, Ignore
from motoko_core.locks import held
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, orchestrate, set_state
from tests.driving import Clock, Firings, settle

REASON = {"reason": "EXIT_CODE", "exit_code": 3, "attempt": 1, "stderr": "no license"}
#: Of a run that a launcher has in hand.
HELD = '{"tag": "motoko-mult-1"}'
#: More than the ticks after which a quiet workflow is given up.
LONG = 8


class Recorder(ErrorHandler):
    def __init__(self) -> None:
        self.asked: list[Failure] = []

    def decide(self, failure: Failure) -> Ignore:
        self.asked.append(failure)
        return Ignore()


async def announced(workflow: Workflow) -> None:
    """Let what was committed reach the engine."""
    for _ in range(20):
        workflow.mult.database.index.refresh()
        await asyncio.sleep(0)


async def test_handlers_are_asked_when_the_launcher_has_written_the_reason(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    recorder = Recorder()
    asked_early: list[Any] = []

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=recorder)
        with held(workflow.mult.launcher_lock, "a launcher", ""):
            waiter = asyncio.ensure_future(wait_for(workflow))
            set_state(workflow, reference, "FAILED", motoko_handle=HELD)
            await announced(workflow)
            asked_early.extend(recorder.asked)
            assert not waiter.done()
            set_state(workflow, reference, "FAILED", motoko_handle="", motoko_failure=REASON)
            await waiter

    async def wait_for(workflow: Workflow) -> None:
        await workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert asked_early == []
    assert [(f.reason, f.exit_code, f.stderr) for f in recorder.asked] == [("EXIT_CODE", 3, "no license")]


async def test_handlers_are_asked_when_the_launcher_has_died(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    recorder = Recorder()

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=recorder)
        with held(workflow.mult.launcher_lock, "a launcher", ""):
            set_state(workflow, reference, "FAILED", motoko_handle=HELD)
            await announced(workflow)
        await workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert [f.reason for f in recorder.asked] == ["UNKNOWN"]


async def test_whoever_awaits_a_failed_run_without_a_launcher_is_told_at_once(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    set_state(workflow, reference, "FAILED", motoko_handle=HELD)

    async def main(workflow: Workflow) -> None:
        with pytest.raises(RunFailed, match=reference):
            await workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)


async def test_whoever_has_failed_and_tidies_up_is_not_asked_about_when_an_orchestrator_begins(
    workflow: Workflow,
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    set_state(workflow, reference, "FAILED", motoko_handle=HELD)
    first, second = Recorder(), Recorder()

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=second)
        await announced(workflow)
        assert first.asked == second.asked == []
        set_state(workflow, reference, "FAILED", motoko_handle="", motoko_failure=REASON)
        await workflow.mult.createTask(x=1.0)

    workflow.add_error_handler(f=first)
    with held(workflow.mult.launcher_lock, "a launcher", ""):
        await orchestrate(workflow, main)
    assert [f.reason for f in first.asked] == ["EXIT_CODE"]
    assert second.asked == []  # the first has decided


async def test_a_launcher_of_another_study_says_nothing(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    recorder = Recorder()

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=recorder)
        with held(workflow.mult.launcher_lock, "a launcher", ""):
            set_state(workflow, reference, "FAILED", motoko_handle=HELD)
            await announced(workflow)
        await workflow.mult.createTask(x=1.0)

    with held(workflow.add.launcher_lock, "a launcher", ""):
        await orchestrate(workflow, main)
    assert [f.reason for f in recorder.asked] == ["UNKNOWN"]


async def main_with_an_action(workflow: Workflow) -> None:
    workflow.add_action("done", task="mult", event="state = FINISHED", f=Firings())


async def main_with_error_handlers_alone(workflow: Workflow) -> None:
    workflow.add_error_handler(event="state = BROKEN")


@pytest.mark.parametrize("main", [main_with_an_action, main_with_error_handlers_alone])
async def test_the_workflow_goes_on_while_a_run_that_has_failed_tidies_up(
    workflow: Workflow, clock: Clock, main: Any
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    set_state(workflow, reference, "FAILED", motoko_handle=HELD)
    recorder = Recorder()
    workflow.add_error_handler(f=recorder)
    workflow.orchestrator_function = main
    with held(workflow.mult.launcher_lock, "a launcher", ""):
        execution = asyncio.create_task(workflow.execute_async())
        await settle()
        await clock.tick(LONG)
        assert not execution.done()
        set_state(workflow, reference, "FAILED", motoko_handle="", motoko_failure=REASON)
        await settle()
        assert [f.reason for f in recorder.asked] == ["EXIT_CODE"]
    await clock.tick(LONG)
    await asyncio.wait([execution], timeout=TIMEOUT_S)
    assert execution.done()


@pytest.mark.parametrize("mine", [True, False])
async def test_a_workflow_without_a_launcher_has_stalled_when_its_handlers_were_heard(
    workflow: Workflow, clock: Clock, mine: bool
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    recorder = Recorder()
    workflow.add_error_handler(f=recorder)
    workflow.orchestrator_function = main_with_an_action
    with held(workflow.mult.launcher_lock, "a launcher", ""):
        execution = asyncio.create_task(workflow.execute_async())
        await settle()
        # (a run of another name is not ours to wait for)
        set_state(
            workflow, reference, "FAILED", motoko_handle=HELD, **({} if mine else {"run_name": "theirs"})
        )
        await settle()
        await clock.tick(1 if mine else LONG)
        assert execution.done() is not mine
        assert recorder.asked == []
    await clock.tick(LONG)
    await asyncio.wait([execution], timeout=TIMEOUT_S)
    assert isinstance(execution.exception(), WorkflowStalled)
    assert [f.reason for f in recorder.asked] == ["UNKNOWN"] * mine


@pytest.mark.parametrize("end", ["is settled", "is ignored", "its launcher dies"])
async def test_functions_hear_of_a_failed_run_after_the_handlers_that_are_asked(
    workflow: Workflow, clock: Clock, end: str
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    told: list[Any] = []

    def tell(runs: Any) -> None:
        told.extend((run.entries.get("motoko_failure") or {}).get("reason") for run, _ in runs)

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=tell)
        workflow.add_action("done", task="mult", event="state = FINISHED", f=Firings())

    if end == "is ignored":
        workflow.add_error_handler(f=Recorder())
    workflow.orchestrator_function = main
    with held(workflow.mult.launcher_lock, "a launcher", ""):
        execution = asyncio.create_task(workflow.execute_async())
        await settle()
        set_state(workflow, reference, "FAILED", motoko_handle=HELD)
        await settle()
        await clock.tick(LONG)
        assert told == []
        assert not execution.done()
        if end != "its launcher dies":
            set_state(workflow, reference, "FAILED", motoko_handle="", motoko_failure=REASON)
            await settle()
    await clock.tick(LONG)
    await asyncio.wait([execution], timeout=TIMEOUT_S)
    expected = {"is settled": ["EXIT_CODE"], "is ignored": [], "its launcher dies": [None]}
    assert told == expected[end]
    assert isinstance(execution.exception(), WorkflowStalled if end == "is ignored" else WorkflowAborted)
