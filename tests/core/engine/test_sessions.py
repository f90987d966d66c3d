"""Firings are isolated from each other, and atomic over the studies and the variables."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from motoko_core.errors import ActionError, StaleObjectError
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state, states
from tests.driving import Clock, play, settle, until


def values(manager: Any) -> list[float]:
    return [job.x for _, job in manager.select()]


def variable(workflow: Workflow, name: str) -> str:
    return f"{name}_{workflow.run_name}".replace("-", "_")


async def test_of_two_interleaved_firings_one_aborts_and_the_other_commits(workflow: Workflow) -> None:
    both_at_work = asyncio.Event()
    at_work: list[str] = []

    async def works(workflow: Workflow, event_name: str) -> None:
        value = {"good": 1.0, "bad": 2.0}[event_name]
        workflow.mult.createTask(x=value)
        setattr(workflow.vars, variable(workflow, event_name), 1)
        at_work.append(event_name)
        if len(at_work) == 2:
            both_at_work.set()
        await both_at_work.wait()
        workflow.add.createTask(x=value)
        if event_name == "bad":
            await committed.wait()
            raise ValueError("aborts")

    committed = asyncio.Event()

    async def main(workflow: Workflow) -> None:
        for name in ("good", "bad"):
            workflow.add_action(name, task="mult", event=lambda: True, f=works, once_per_run=True)
        await until(lambda: states(workflow, "add"))
        committed.set()

    with pytest.raises(ActionError, match="aborts"):
        await orchestrate(workflow, main)
    for study in ("mult", "add"):
        manager = workflow.task_managers[study]
        assert transact("the test", partial(values, manager)) == [1.0]
    assert transact("the test", lambda: hasattr(workflow.vars, variable(workflow, "good")))
    assert not transact("the test", lambda: hasattr(workflow.vars, variable(workflow, "bad")))


async def test_nothing_of_a_firing_is_seen_before_its_end(workflow: Workflow, clock: Clock) -> None:
    release = asyncio.Event()

    async def works(workflow: Workflow) -> None:
        workflow.add.createTask(x=1.0)
        setattr(workflow.vars, variable(workflow, "v"), 1)
        assert len(workflow.add.select()) == 1  # it reads its own writes
        await release.wait()

    async def script() -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works, once_per_run=True)
        await settle()
        assert states(workflow, "add") == {}
        assert not transact("the test", lambda: hasattr(workflow.vars, variable(workflow, "v")))
        release.set()
        await settle()
        assert len(states(workflow, "add")) == 1
        assert transact("the test", lambda: getattr(workflow.vars, variable(workflow, "v"))) == 1

    await play(workflow, script)


async def test_a_firing_sees_one_snapshot(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    release = asyncio.Event()
    seen: list[Any] = []

    async def looks(runs: Any) -> None:
        ((run, _job),) = runs
        seen.append(run.state)
        await release.wait()
        seen.append(run.state)

    async def script() -> None:
        workflow.add_action("looks", task="mult", event="state = CREATED", f=looks, once_per_run=True)
        await settle()
        set_state(workflow, task, "FINISHED")
        await settle()
        release.set()
        await settle()
        assert seen == ["CREATED", "CREATED"]

    await play(workflow, script)


async def test_awaiting_a_task_commits_and_goes_on_with_what_is_there_then(
    workflow: Workflow, clock: Clock
) -> None:
    seen: list[Any] = []

    async def works(workflow: Workflow) -> None:
        ((run, _job),) = await workflow.add.createTask(x=1.0)
        seen.append((run.state, run.note))
        raise ValueError("after the checkpoint")

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works)
        await settle()
        (number,) = states(workflow, "add")
        set_state(workflow, f"add.{number}", "FINISHED", note="result")
        await asyncio.Event().wait()

    with pytest.raises(ActionError, match="after the checkpoint"):
        await orchestrate(workflow, main)
    assert seen == [("FINISHED", "result")]
    assert list(states(workflow, "add").values()) == ["FINISHED"]


async def test_runs_of_a_firing_cannot_be_used_after_it(workflow: Workflow, clock: Clock) -> None:
    create_tasks(workflow, x=1.0)
    kept: list[Any] = []

    async def script() -> None:
        workflow.add_action(
            "keeps", task="mult", event="state = CREATED", f=lambda runs: kept.extend(runs), once_per_run=True
        )
        await settle()
        with pytest.raises(StaleObjectError, match="over"):
            _ = kept[0][0].state

    await play(workflow, script)


@pytest.mark.parametrize("fatal", [1, 2])
async def test_a_half_committed_transaction_is_completed_before_main(
    workflow: Workflow, fatal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That the journal does it is tested elsewhere; here, that the orchestrator asks it.
    from motoko_core.journal import Journal

    asked: list[int] = []
    monkeypatch.setattr(Journal, "recover", lambda self: asked.append(len(self._connect)))

    def main(workflow: Workflow) -> None:
        assert asked == [3]

    await orchestrate(workflow, main)
