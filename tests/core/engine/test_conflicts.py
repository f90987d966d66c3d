"""A conflict undoes a piece of user code, and calls it again from its top."""

from __future__ import annotations

import asyncio
import builtins
import sys
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from motoko_core.engine.blame import is_conflict
from motoko_core.errors import ConflictRetriesExceeded
from motoko_core.session import MAX_ATTEMPTS, transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state
from tests.driving import Clock, Firings, ids, play, settle, until
from tests.zeo_clients import caught_up


def set_note(run: Any, text: str) -> None:
    run.entries["note"] = text


def note_of(workflow: Workflow, reference: str) -> Any:
    return transact(
        "the test", lambda: next(iter(workflow.get_runs([reference]).values()))[0].entries["note"]
    )


@pytest.mark.parametrize("whose", ["its own", "its own, later", "another"])
async def test_a_firing_that_creates_tasks_keeps_to_what_it_was_fired_for(
    workflow: Workflow, other: Workflow, clock: Clock, whose: str
) -> None:
    """Creating a task, it sees what others have created since it began, unless its own run was changed."""
    task, neighbour = create_tasks(workflow, x=[1.0, 2.0])
    set_state(workflow, task, "FINISHED")
    seen: list[str] = []

    def disturbed(workflow: Workflow, runs: Any) -> None:
        ours, theirs = workflow.mult.database.db.storage, other.mult.database.db.storage
        if not seen:
            if whose == "its own, later":
                create_tasks(other, x=5.0)
                caught_up(ours, theirs.lastTransaction())
                workflow.mult.createTask(x=2.0)  # it is there: nothing is written
            set_state(other, neighbour if whose == "another" else task, "START")
            create_tasks(other, x=3.0)
            caught_up(ours, theirs.lastTransaction())
        created = workflow.mult.createTask(x=4.0)  # before it has looked at its run
        seen.extend(run.state for run, _ in runs)
        assert len(created) == 1

    async def script() -> None:
        workflow.add_action("it", task="mult", event="state = FINISHED", f=disturbed, once_per_run=True)
        await settle()

    await play(workflow, script)
    xs = transact("the test", lambda: [job.x for _, job in workflow.mult.select()])
    if whose != "another":
        assert set(seen) <= {"FINISHED"}
        assert 4.0 not in xs
    else:
        assert seen == ["FINISHED"]
        assert xs == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("wrapped", ["not", "from", "while handling", "from None", "swallowed"])
async def test_a_callback_is_called_again_with_fresh_runs(workflow: Workflow, wrapped: str) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    seen: list[Any] = []

    async def disturbed(workflow: Workflow, runs: Any) -> None:
        ((run, _job),) = runs
        seen.append(run.entries.get("note"))
        set_note(run, f"attempt {len(seen)}")
        workflow.add.createTask(x=float(len(seen)))
        if len(seen) > 1:
            workflow.finished = True
            return
        set_state(workflow, task, "CREATED", note="somebody else")
        if wrapped == "not":
            return
        try:
            await workflow.add.select()  # commits
        except ConflictError as error:
            if wrapped == "from":
                raise ValueError("wrapped") from error
            if wrapped == "while handling":
                raise ValueError("wrapped")  # noqa: B904
            if wrapped == "from None":
                raise ValueError("wrapped") from None

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event="state = CREATED", f=disturbed, once_per_run=True)

    await orchestrate(workflow, main)
    assert seen == [None, "somebody else"]
    assert note_of(workflow, task) == "attempt 2"
    assert transact("the test", lambda: [j.x for _, j in workflow.add.select()]) == [2.0]


async def test_main_is_called_again_without_doubled_actions_and_handlers(
    workflow: Workflow, clock: Clock
) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    fired = Firings()
    attempts = 0

    async def main(workflow: Workflow) -> None:
        nonlocal attempts
        attempts += 1
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        workflow.add_error_handler(f="ignore")
        workflow.add_error_handler()
        await settle()
        run = next(iter(workflow.get_runs([first]).values()))[0]
        set_note(run, f"attempt {attempts}")
        if attempts == 1:
            set_state(workflow, first, "CREATED", note="somebody else")
            return
        await settle()
        set_state(workflow, second, "FINISHED")
        await settle()
        assert fired.take() == [ids([second])]
        assert [len(actions) for actions in workflow.actions.values()] == [1, 1]
        assert len(workflow._engine.handlers.in_order) == 1
        workflow.finished = True

    await orchestrate(workflow, main)
    assert attempts == 2
    assert note_of(workflow, first) == "attempt 2"


async def test_finished_of_an_attempt_that_was_undone_does_not_count(
    workflow: Workflow, clock: Clock
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    attempts = 0

    def hasty(workflow: Workflow, runs: Any) -> None:
        nonlocal attempts
        attempts += 1
        ((run, _job),) = runs
        set_note(run, f"attempt {attempts}")
        if attempts == 1:
            workflow.finished = True
            set_state(workflow, task, "CREATED", note="somebody else")

    later = Firings()

    async def main(workflow: Workflow) -> None:
        workflow.add_action("hasty", task="mult", event="state = CREATED", f=hasty, once_per_run=True)
        await until(lambda: attempts == 2)
        await settle()
        workflow.add_action("later", task="mult", event=lambda: True, f=later)
        await settle()
        assert later.take() == ["mult"]
        workflow.finished = True

    await orchestrate(workflow, main)


async def test_a_clean_exit_in_conflict_is_tried_again(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    attempts = 0

    def leaves(runs: Any) -> None:
        nonlocal attempts
        attempts += 1
        ((run, _job),) = runs
        set_note(run, f"attempt {attempts}")
        if attempts == 1:
            set_state(workflow, task, "CREATED", note="somebody else")
        sys.exit(0)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("leaves", task="mult", event="state = CREATED", f=leaves)

    workflow.orchestrator_function = main
    with pytest.raises(SystemExit):
        await workflow.execute_async()
    assert note_of(workflow, task) == "attempt 2"


@pytest.mark.parametrize("where", ["main", "a callback"])
async def test_retries_are_bounded(workflow: Workflow, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motoko_core.engine.firing.backoff_s", lambda attempt: 0)
    (task,) = create_tasks(workflow, x=1.0)
    attempts = 0

    def disturbed(workflow: Workflow) -> None:
        nonlocal attempts
        attempts += 1
        set_note(next(iter(workflow.get_runs([task]).values()))[0], "mine")
        set_state(workflow, task, "CREATED", note=f"somebody else's {attempts}")

    async def main(workflow: Workflow) -> None:
        if where == "main":
            disturbed(workflow)
        else:
            workflow.add_action("it", task="mult", event=lambda: True, f=disturbed)

    with pytest.raises(ConflictRetriesExceeded, match=where.removeprefix("a callback") or "'it'"):
        await orchestrate(workflow, main)
    assert attempts == MAX_ATTEMPTS


def test_what_counts_as_a_conflict() -> None:
    given_up = ConflictRetriesExceeded("given up")
    given_up.__cause__ = ConflictError()
    itself = ValueError()
    itself.__cause__ = itself
    assert is_conflict(ConflictError())
    assert not is_conflict(given_up)
    assert not is_conflict(itself)
    assert not is_conflict(None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups are new in Python 3.11")
def test_a_conflict_in_a_group_counts() -> None:
    group = getattr(builtins, "ExceptionGroup")  # noqa: B009  unknown to linters for Python 3.10
    assert is_conflict(group("several", [ValueError(), ConflictError()]))
    assert not is_conflict(group("several", [ValueError()]))


# --------------------------------------------------------------------------- many at once


async def creates(workflow: Workflow, value: float) -> None:
    await asyncio.sleep(0)
    workflow.add.createTask(x=value)
    await asyncio.sleep(0)


def check_created(workflow: Workflow, count: int) -> None:
    pairs = transact("the test", lambda: [(r.id, j.id, j.x) for r, j in workflow.add.select()])
    assert sorted(x for _, _, x in pairs) == [float(i) for i in range(count)]
    runs, jobs = sorted(p[0] for p in pairs), sorted(p[1] for p in pairs)
    assert runs == list(range(runs[0], runs[0] + count))
    assert jobs == list(range(jobs[0], jobs[0] + count))


async def test_64_actions_that_create_tasks_at_once(make_workflow: Any, clock: Clock) -> None:
    workflow = make_workflow()
    workflow.create(validated=True)
    workflow.run_name = "many"
    wanted = 64

    async def one(workflow: Workflow, event_name: str) -> None:
        await creates(workflow, float(event_name))

    def enough(workflow: Workflow, task_manager: Any) -> bool:
        return len(workflow.add.select()) == wanted

    def finish(workflow: Workflow) -> None:
        workflow.finished = True

    async def main(workflow: Workflow) -> None:
        for i in range(64):
            workflow.add_action(str(i), task="mult", event=lambda: True, f=one, once_per_run=True)
        workflow.add_action("end", task="mult", event=enough, f=finish)

    await orchestrate(workflow, main)
    check_created(workflow, 64)
    # 64 firings of one action, each over another task
    begun = 0

    async def again(workflow: Workflow, runs: Any) -> None:
        nonlocal begun
        begun += 1
        for _run, job in runs:
            await creates(workflow, 64 + job.x)

    async def main_again(workflow: Workflow) -> None:
        nonlocal wanted
        workflow.add_action("again", task="mult", event="state = CREATED", f=again, once_per_run=True)
        for i in range(64):
            create_tasks(workflow, "mult", x=float(i))
            await settle_one(workflow)
        wanted = 128
        workflow.add_action("end", task="mult", event=enough, f=finish)

    await orchestrate(workflow, main_again)
    check_created(workflow, 128)
    assert begun >= 32


async def settle_one(workflow: Workflow) -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_64_actions_that_create_the_same_task_get_one(workflow: Workflow) -> None:
    got: list[int] = []

    async def one(workflow: Workflow) -> None:
        await asyncio.sleep(0)
        ((run, _job),) = workflow.add.createTask(x=0.0)
        await asyncio.sleep(0)
        got.append(run.id)

    async def main(workflow: Workflow) -> None:
        for i in range(64):
            workflow.add_action(str(i), task="mult", event=lambda: True, f=one, once_per_run=True)
        await until(lambda: len(got) >= 64 and len(workflow._engine.work.tasks) == 1)
        workflow.finished = True

    await orchestrate(workflow, main)
    check_created(workflow, 1)
