"""Runs that are read and stored without ZODB's objects: the same as in a session, or nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from BTrees.OOBTree import OOBTree
from ZODB.POSException import ConflictError

from motoko_core.session import transact
from motoko_core.study import direct_runs
from motoko_core.study.direct_runs import DirectRuns
from motoko_core.study.plain_objects import Unexpected, unpickled
from motoko_core.study.runs import SessionRuns
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state
from tests.launching import entries_of
from tests.zeo_clients import half_told


@pytest.fixture
def direct(workflow: Workflow) -> DirectRuns:
    return DirectRuns(workflow.mult.database)


def begin(workflow: Workflow, direct: DirectRuns) -> None:
    """See what was committed so far, and have the index see it."""
    workflow.mult.database.index.refresh()
    direct.begin()


def change(workflow: Workflow, direct: DirectRuns, reference: str, **entries: Any) -> None:
    begin(workflow, direct)
    ((_, run),) = direct.get([number(reference)])
    run.entries.update(entries)
    direct.commit("the test")


def in_session(workflow: Workflow, work: Callable[[SessionRuns], Any]) -> Any:
    return transact("the test", lambda: work(SessionRuns(workflow.mult.database)))


def test_a_run_is_what_a_session_sees(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1.5, label="a", items=[[1, 2]])
    run_id = number(reference)

    def seen(runs: Any) -> Any:
        ((found, run),) = runs.get([run_id])
        job = runs.job(run.entries["job_id"])
        files = {file_id: runs.file(file_id) for file_id in [*run.configfiles, run.entries["exec"]]}
        return found, dict(run.entries), dict(run.attributes), sorted(run.configfiles), job, files

    begin(workflow, direct)
    here = seen(direct)
    assert here == in_session(workflow, seen)
    assert here[4]["items"] == [[1, 2]]
    assert direct.has_job(here[1]["job_id"])


def test_what_is_changed_is_stored_for_everybody(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)
    now = datetime.datetime(2026, 11, 28, 12, 0, 0)
    change(
        workflow,
        direct,
        reference,
        state="START",
        start_time=now,
        motoko_failure={"attempt": 2, "all": [1, (2,)]},
    )
    entries = entries_of(workflow, reference)
    assert (entries["state"], entries["start_time"]) == ("START", now)
    assert entries["motoko_failure"] == {"attempt": 2, "all": [1, (2,)]}
    database = workflow.mult.database
    database.index.refresh()
    assert database.index.rows.value(number(reference), "state") == "START"
    assert transact("the test", lambda: len(workflow.mult.select("state = START"))) == 1


def test_what_is_stored_is_what_zodb_would_store(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)

    def stored() -> Any:
        begin(workflow, direct)
        ((_, run),) = direct.get([number(reference)])
        assert isinstance(run, direct_runs._DirectRun)
        return unpickled(direct._read(run._record.entries.oid)[0])

    change(workflow, direct, reference, state="START")
    mine = stored()
    for state in ("FINISHED", "START"):
        set_state(workflow, reference, state)
    assert stored() == mine


def test_a_value_of_another_type_is_another_value(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)
    change(workflow, direct, reference, score=1)
    change(workflow, direct, reference, score=True)
    assert entries_of(workflow, reference)["score"] is True


def test_what_is_done_to_the_attributes_of_a_run_is_nobody_elses_business(
    workflow: Workflow, direct: DirectRuns
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    transact("the test", lambda: setattr(workflow.get_runs([reference])["mult"][0], "marks", ["a"]))
    for _ in range(2):
        begin(workflow, direct)
        ((_, run),) = direct.get([number(reference)])
        assert run.attributes == {"marks": ["a"]}
        run.attributes["marks"].append("mine")


def test_nothing_changed_is_nothing_stored(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)
    before = workflow.mult.database.db.storage.lastTransaction()
    change(workflow, direct, reference)
    assert workflow.mult.database.db.storage.lastTransaction() == before


def test_changes_of_others_to_other_values_are_merged(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)
    begin(workflow, direct)
    ((_, run),) = direct.get([number(reference)])
    run.entries["state"] = "START"
    set_state(workflow, reference, "CREATED", note="mine")
    direct.commit("the test")
    entries = entries_of(workflow, reference)
    assert (entries["state"], entries["note"]) == ("START", "mine")
    change(workflow, direct, reference, last_step=3)  # what was merged is read again
    assert entries_of(workflow, reference) == {**entries, "last_step": 3}


def test_changes_of_others_to_the_same_value_are_a_conflict(workflow: Workflow, direct: DirectRuns) -> None:
    first, second = map(str, create_tasks(workflow, x=[1, 2]))
    begin(workflow, direct)
    for _, run in direct.get(map(number, (first, second))):
        run.entries["state"] = "START"
    set_state(workflow, second, "FINISHED")
    with pytest.raises(ConflictError):
        direct.commit("the test")
    assert [entries_of(workflow, r)["state"] for r in (first, second)] == ["CREATED", "FINISHED"]
    change(workflow, direct, first, state="START")
    assert entries_of(workflow, first)["state"] == "START"


def test_a_run_that_was_stored_here_and_changed_by_others_is_read_again(
    workflow: Workflow, direct: DirectRuns
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    change(workflow, direct, reference, state="START")
    set_state(workflow, reference, "FINISHED", note="mine")
    change(workflow, direct, reference, last_step=1)
    entries = entries_of(workflow, reference)
    assert (entries["state"], entries["note"], entries["last_step"]) == ("FINISHED", "mine", 1)


class Odd:
    """A class of the user's own."""


def many_entries() -> dict[str, Any]:
    return {f"value_{i}": i for i in range(20)}


@pytest.mark.parametrize(
    "odd",
    [
        lambda run: run.entries.update({"mine": Odd()}),
        lambda run: run.entries.update({"mine": [{"a": Odd()}]}),
        lambda run: run.entries.update({"mine": OOBTree({"a": 1})}),
        lambda run: run.entries.update(many_entries()),
        lambda run: setattr(run, "mine", Odd()),
        lambda run: setattr(run, "mine", OOBTree({"a": 1})),
    ],
    ids=["class", "nested class", "tree", "many entries", "attribute", "tree as attribute"],
)
def test_what_is_not_as_usual_is_left_to_a_session(
    workflow: Workflow, direct: DirectRuns, odd: Callable[[Any], None]
) -> None:
    (reference,) = create_tasks(workflow, x=1)

    def work() -> None:
        ((run,),) = [[run for run, _ in workflow.mult.select(f"runs.id = {number(reference)}")]]
        odd(run)

    transact("the test", work)
    begin(workflow, direct)
    with pytest.raises(Unexpected):
        list(direct.get([number(reference)]))


def test_entries_that_become_too_many_are_left_to_a_session(workflow: Workflow, direct: DirectRuns) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with pytest.raises(Unexpected, match="more entries than one object holds"):
        change(workflow, direct, reference, **many_entries(), **{f"more_{i}": i for i in range(20)})
    assert "value_1" not in entries_of(workflow, reference)


def test_a_job_that_the_index_does_not_know_is_left_to_a_session(
    workflow: Workflow, direct: DirectRuns
) -> None:
    begin(workflow, direct)
    with pytest.raises(Unexpected, match="is not known"):
        direct.job(10**6)
    with pytest.raises(Unexpected, match="is not known"):
        direct.has_job(10**6)


def test_a_run_that_was_deleted_before_is_not_there(workflow: Workflow, direct: DirectRuns) -> None:
    first, second = map(str, create_tasks(workflow, x=[1, 2]))
    workflow.mult.database.index.refresh()

    def delete() -> None:
        del workflow.mult.base.runs[number(first)]

    transact("the test", delete)
    direct.begin()  # the index has not looked since
    run_ids = [number(first), number(second), 10**6]
    assert [run_id for run_id, _ in direct.get(run_ids)] == [number(second)]


def test_an_index_that_is_behind_is_not_relied_on(
    workflow: Workflow, direct: DirectRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    index.refresh()
    set_state(workflow, reference, "START")
    monkeypatch.setattr(index, "refresh", lambda: None)
    with pytest.raises(Unexpected, match="the index is behind"):
        direct.begin()


def test_what_the_index_was_told_of_is_read(workflow: Workflow, direct: DirectRuns, other: Workflow) -> None:
    """A launcher hears from the index that a run was reset, and must not find the state before."""
    (reference,) = create_tasks(workflow, x=1)
    set_state(workflow, reference, "FINISHED")
    database = workflow.mult.database
    index = database.index
    begin(workflow, direct)
    reset = partial(set_state, other, reference, "CREATED")
    with half_told(database.db.storage, index._storage, reset):
        index.refresh()
        assert index.rows.value(number(reference), "state") == "CREATED"
        direct.begin()
        ((_, run),) = direct.get([number(reference)])
        assert run.entries["state"] == "CREATED"


def test_a_database_elsewhere_is_left_to_a_session(workflow: Workflow, direct: DirectRuns) -> None:
    workflow.mult.database.index.refresh()
    workflow.mult.database.db.storage.file = None
    with pytest.raises(Unexpected, match="cannot be read here"):
        direct.begin()


def test_a_file_is_added_by_a_session_and_known_from_then_on(workflow: Workflow, direct: DirectRuns) -> None:
    name = f"{workflow.run_name}.txt"
    begin(workflow, direct)
    with pytest.raises(Unexpected, match="is not in the study yet"):
        direct.add_file(name, name)
    file_id = in_session(workflow, lambda runs: runs.add_file(name, name))
    assert direct.add_file(name, name) == file_id
    found = direct.file(file_id)
    assert found is not None
    assert (found.name, found.content) == (name, name)
    assert direct.file("no such file") is None
