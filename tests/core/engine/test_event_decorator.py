"""``@event``: transparent inside a firing, a transaction of its own when called directly."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from motoko_core.session import transact
from motoko_core.workflow import Workflow, event
from tests.conftest import create_tasks, orchestrate, set_state, states
from tests.driving import Clock, play, settle


async def test_inside_a_firing_it_commits_nothing_by_itself(workflow: Workflow, clock: Clock) -> None:
    seen: list[Any] = []

    @event
    async def inner(workflow: Workflow) -> str:
        workflow.add.createTask(x=1.0)
        return "result"

    async def outer(workflow: Workflow) -> None:
        seen.append(await inner(workflow))
        seen.append(len(states(workflow, "add")))

    async def script() -> None:
        workflow.add_action("it", task="mult", event=lambda: True, f=event(outer), once_per_run=True)
        await settle()
        assert seen == ["result", 0]
        assert len(states(workflow, "add")) == 1

    await play(workflow, script)


async def test_called_directly_from_main_it_commits(workflow: Workflow) -> None:
    @event
    async def create(workflow: Workflow) -> int:
        workflow.add.createTask(x=1.0)
        return 5

    async def main(workflow: Workflow) -> None:
        workflow.mult.createTask(x=1.0)
        assert await create(workflow) == 5
        assert len(states(workflow, "mult")) == len(states(workflow, "add")) == 1

    await orchestrate(workflow, main)


async def test_called_directly_it_is_called_again_after_a_conflict(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    attempts = mains = 0

    @event
    def disturbed(workflow: Workflow) -> None:
        nonlocal attempts
        attempts += 1
        run = next(iter(workflow.get_runs([task]).values()))[0]
        run.entries["note"] = f"attempt {attempts}"
        if attempts == 1:
            set_state(workflow, task, "CREATED", note="somebody else")

    async def main(workflow: Workflow) -> None:
        nonlocal mains
        mains += 1
        await disturbed(workflow)

    await orchestrate(workflow, main)
    assert (attempts, mains) == (2, 1)
    run = transact("the test", lambda: dict(next(iter(workflow.get_runs([task]).values()))[0].entries))
    assert run["note"] == "attempt 2"


async def test_called_directly_it_undoes_its_work_when_it_raises(workflow: Workflow) -> None:
    @event
    async def fails(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)
        raise ValueError("no")

    async def main(workflow: Workflow) -> None:
        workflow.mult.createTask(x=1.0)
        with pytest.raises(ValueError, match="no"):
            await fails(workflow)
        assert not workflow.add.select()

    await orchestrate(workflow, main)
    assert len(states(workflow, "mult")) == 1
    assert states(workflow, "add") == {}


async def test_it_works_outside_of_an_orchestrator(workflow: Workflow) -> None:
    @event
    def create(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)

    await create(workflow)
    assert len(states(workflow, "add")) == 1


async def test_it_logs_and_keeps_the_function_s_name_and_signature(caplog: pytest.LogCaptureFixture) -> None:
    @event
    async def combine(runs: Any, workflow: Any = None) -> None:
        """Combine results."""

    assert combine.__name__ == "combine"
    assert combine.__doc__ == "Combine results."
    assert list(inspect.signature(combine).parameters) == ["runs", "workflow"]
    with caplog.at_level(logging.INFO, "motoko"):
        await combine([])
    assert "fire: combine" in caplog.text
