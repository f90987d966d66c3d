"""Transactions that are larger than the memory: what they have created is in a file until the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from motoko_core.errors import StaleObjectError, TaskError
from motoko_core.session import Session, transact, use
from motoko_core.study import long_list, records
from motoko_core.study.bulk_client import BulkClient
from motoko_core.study.long_list import LongList
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state, states

MANY = 25


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PORTION", 10)
    monkeypatch.setattr(long_list, "_PREFETCH", 10)


@pytest.fixture
def it(workflow: Workflow) -> Iterator[Session]:
    """A session."""
    create_tasks(workflow, n=1000)  # there is something before
    with use(Session("it")) as session:
        yield session


def sweep(workflow: Workflow, label: str = "it", count: int = MANY) -> Any:
    runs = workflow.mult.createTask(n=range(count), label=f"{label} {workflow.run_name}")
    assert isinstance(runs._runs, LongList)
    return runs


def spilled(session: Session, workflow: Workflow) -> Any:
    return session.connection(workflow.mult.database)._savepoint_storage


def check(workflow: Workflow, expected: int) -> None:
    """So many tasks, each once, with consecutive ids, and the study's counters as they should be."""

    def look() -> None:
        base = workflow.mult.base
        for kind, counter in (("jobs", base.jobs_counter), ("runs", base.runs_counter)):
            found = base.data.entries[kind].entries
            assert max(found) + 1 == counter
            assert [record.entries["id"] for record in found.values()] == list(found)
        points = [(job.entries.get("label"), job.n) for _, job in workflow.mult.select()]
        assert len(points) == len(set(points)) == expected

    transact("look", look)


def test_created_tasks_are_read_back(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    assert len(spilled(it, workflow)) > 3 * MANY
    assert [job.n for _, job in runs] == list(range(MANY))
    assert [run.state for run, _ in runs] == ["CREATED"] * MANY
    it.commit()
    check(workflow, MANY + 1)


def test_created_tasks_are_selected_and_tabulated(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    assert len(workflow.mult.select()) == MANY + 1
    assert [job.n for _, job in workflow.mult.select("n < 3")] == [0, 1, 2]
    assert list(runs.to_dataframe()["n"]) == list(range(MANY))
    assert len(workflow.mult.select("label ~ ^it").to_dataframe()) == MANY


def test_created_tasks_can_be_changed(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    runs[3][0].state = "MINE"
    sweep(workflow, "another")  # moves it into the file once more
    runs[4][0].state = "MINE"
    assert [job.n for _, job in workflow.mult.select("state = MINE")] == [3, 4]
    it.commit()
    assert sorted(states(workflow).values()).count("MINE") == 2
    check(workflow, 2 * MANY + 1)


def test_same_sweep_gives_the_tasks_that_are_in_the_file(workflow: Workflow, it: Session) -> None:
    assert list(sweep(workflow)._ids) == list(sweep(workflow)._ids)
    it.commit()
    check(workflow, MANY + 1)


def test_nothing_is_left_of_an_aborted_sweep(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    it.abort()
    it.begin()
    assert spilled(it, workflow) is None
    assert len(workflow.mult.select()) == 1
    with pytest.raises(TaskError, match="is not the task that was created"):
        runs[0]
    assert len(sweep(workflow, "again")) == MANY
    it.commit()
    check(workflow, MANY + 1)


def test_task_that_has_the_id_of_an_undone_one_is_not_taken_for_it(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    it.abort()
    it.begin()
    others = sweep(workflow, "others")
    assert list(runs._ids) == list(others._ids)
    with pytest.raises(TaskError, match="Create it again"):
        runs[0]
    assert others[0][1].label.startswith("others")


def test_long_list_is_of_its_session(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    it.commit()
    with use(Session("another")), pytest.raises(StaleObjectError, match="was handed out by a session"):
        runs[0]
    it.begin()
    assert runs[0][1].n == 0


# ------------------------------------------------------------------ savepoints of the user's


@pytest.mark.parametrize("before", [True, False])
def test_sweep_is_taken_back_to_a_savepoint(workflow: Workflow, it: Session, before: bool) -> None:
    kept = sweep(workflow, "kept") if before else []
    savepoint = it.manager.savepoint()
    for label in ("first", "second"):  # the same savepoint, twice
        undone = sweep(workflow, label)
        savepoint.rollback()
        assert len(workflow.mult.select()) == len(kept) + 1
        with pytest.raises(TaskError):
            undone[0]
        assert [job.n for _, job in kept] == list(range(len(kept)))
    sweep(workflow, "last")
    it.commit()
    check(workflow, len(kept) + MANY + 1)


def test_change_after_a_sweep_is_taken_back(workflow: Workflow, it: Session) -> None:
    runs = sweep(workflow)
    savepoint = it.manager.savepoint()
    runs[3][0].state = "MINE"
    savepoint.rollback()
    assert runs[3][0].state == "CREATED"
    it.commit()
    assert set(states(workflow).values()) == {"CREATED"}


# ------------------------------------------------------------------ commits that fail


def test_sweep_in_conflict_is_created_again(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, n=1000)
    attempts = 0

    def work() -> None:
        nonlocal attempts
        attempts += 1
        workflow.get_runs([reference])["mult"][0].state = "MINE"
        sweep(workflow)
        if attempts == 1:
            set_state(workflow, reference, "THEIRS")

    transact("it", work)
    assert attempts == 2
    check(workflow, MANY + 1)


def test_nothing_is_left_in_memory_of_a_commit_that_broke_off(
    workflow: Workflow, it: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time at another object: what comes after it has to leave the memory, too."""
    store, left = BulkClient.store, 0

    def breaks_off(client: BulkClient, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ClientDisconnected
        store(client, *arguments)

    for number in range(0, 200, 20):
        left = number
        runs = sweep(workflow)
        assert runs[MANY - 1][0].state == "CREATED"  # is in memory
        with monkeypatch.context() as context:
            context.setattr(BulkClient, "store", breaks_off)
            with pytest.raises(ClientDisconnected):
                it.commit()
        it.begin()
        assert len(workflow.mult.select()) == 1
    sweep(workflow)
    it.commit()
    check(workflow, MANY + 1)


def test_wrong_value_at_the_end_leaves_nothing_behind(workflow: Workflow, it: Session) -> None:
    with pytest.raises(TaskError, match=r"'n' of study '.*' is declared as int, but was given 'wrong'"):
        workflow.mult.createTask(n=[*range(2000), "wrong"])
    assert spilled(it, workflow) is None
    it.commit()
    check(workflow, 1)


def test_interrupted_sweep_leaves_nothing_behind(
    workflow: Workflow, it: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, done = LongList.append, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == MANY - 2:
            raise KeyboardInterrupt
        append(*arguments)

    with monkeypatch.context() as context:
        context.setattr(LongList, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(workflow)
    it.abort()
    it.begin()
    sweep(workflow)
    it.commit()
    check(workflow, MANY + 1)


def test_scripts_sweep_is_its_own_until_the_commit(workflow: Workflow) -> None:
    create_tasks(workflow, n=1000)
    runs = sweep(workflow)
    assert [job.n for _, job in runs] == list(range(MANY))
    assert len(workflow.mult.select()) == MANY + 1
    assert len(states(workflow)) == 1
    transaction.commit()
    assert [job.n for _, job in runs] == list(range(MANY))
    check(workflow, MANY + 1)


async def test_long_list_is_awaited(workflow: Workflow) -> None:
    found: list[int] = []

    async def main(workflow: Workflow) -> None:
        runs = sweep(workflow)
        waiting = asyncio.ensure_future(asyncio.to_thread(finish, workflow))
        found.extend(job.n for _, job in await runs)
        await waiting

    await orchestrate(workflow, main)
    assert found == list(range(MANY))


def finish(workflow: Workflow) -> None:
    def work() -> int:
        created = workflow.mult.select("state = CREATED").exec()
        for run, _ in created:
            run.state = "FINISHED"
        return len(created)

    left = MANY
    while left:
        left -= transact("a launcher", work)


def test_session_goes_on_after_a_sweep_that_was_in_conflict(workflow: Workflow, it: Session) -> None:
    sweep(workflow)
    create_tasks(workflow, n=1, label="other")
    with pytest.raises(ConflictError):
        it.commit()
    it.begin()
    assert len(workflow.mult.select()) == 2
    sweep(workflow)
    it.commit()
    check(workflow, MANY + 2)
