"""A script may say itself that its run failed; why, is known when the launcher has seen its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from motoko_core.errors import RunFailed
from motoko_core.interfaces import ErrorHandler, Failure, Ignore
from motoko_core.locks import held
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state

REASON = {"reason": "EXIT_CODE", "exit_code": 3, "attempt": 1, "stderr": "no license"}


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
            set_state(workflow, reference, "FAILED", handle="{}")
            await announced(workflow)
            asked_early.extend(recorder.asked)
            assert not waiter.done()
            set_state(workflow, reference, "FAILED", handle="", failure=REASON)
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
            set_state(workflow, reference, "FAILED", handle="{}")
            await announced(workflow)
        await workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert [f.reason for f in recorder.asked] == ["UNKNOWN"]


async def test_whoever_awaits_a_failed_run_without_a_launcher_is_told_at_once(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    set_state(workflow, reference, "FAILED", handle="{}")

    async def main(workflow: Workflow) -> None:
        with pytest.raises(RunFailed, match=reference):
            await workflow.mult.createTask(x=1.0)

    await orchestrate(workflow, main)
