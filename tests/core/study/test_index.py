"""The table of runs: it follows every kind of change, and finds what it was not told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import Mock

import pytest
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.utils import p64, u64

from motoko_core.interfaces import RunChange
from motoko_core.session import Session, transact, use
from motoko_core.study.index import RunIndex
from motoko_core.study.local_file import LocalFile
from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.record_file import EarlierRecords, RecordFile
from motoko_core.study.run_table import RunTable
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state
from tests.processes import run_python


class Follower:
    """An index, and what its listeners heard."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.index: RunIndex = workflow.mult.database.index
        self.index.refresh()
        self.heard: list[tuple[int, str | None, str | None]] = []
        self.index.listeners.append(self._listen)

    def _listen(self, changes: Sequence[RunChange]) -> None:
        self.heard += [(change.run_id, change.before, change.after) for change in changes]

    def hear(self) -> list[tuple[int, str | None, str | None]]:
        self.index.refresh()
        heard, self.heard = self.heard, []
        return heard

    def agree(self) -> None:
        """The table is what one that is made from scratch would be."""
        self.index.refresh()
        fresh = RunIndex(self.workflow.mult.database)
        try:
            assert self.index.rows == fresh.rows
            assert fresh.jobs.items() <= self.index.jobs.items()  # those of deleted runs may stay
            assert self.index._table.groups == fresh._table.groups
            assert set(fresh._table._run_of.items()) <= set(self.index._table._run_of.items())
        finally:
            fresh.close()


@pytest.fixture
def follower(workflow: Workflow) -> Iterator[Follower]:
    follower = Follower(workflow)
    yield follower
    follower.agree()


def change(workflow: Workflow, reference: str, f: Callable[[Any], Any]) -> None:
    transact("change", lambda: f(workflow.get_runs([reference])["mult"][0]))


def delete(workflow: Workflow, *references: str) -> None:
    def work() -> None:
        for reference in references:
            del workflow.mult.base.runs[number(reference)]

    transact("delete", work)


# ------------------------------------------------------------------ what is announced


def test_new_run_is_heard(follower: Follower) -> None:
    first, second = map(number, create_tasks(follower.workflow, x=[1, 2]))
    assert follower.hear() == [(first, None, "CREATED"), (second, None, "CREATED")]
    assert follower.index.rows[first]["run_name"] == follower.workflow.run_name
    assert follower.index.jobs[follower.index.rows[second]["job_id"]]["x"] == 2.0
    assert follower.hear() == []


def test_changed_state_is_heard(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    follower.hear()
    set_state(follower.workflow, reference, "START")
    assert follower.hear() == [(number(reference), "CREATED", "START")]
    name = follower.workflow.run_name
    assert follower.index.candidates(frozenset({name}), frozenset({"START"})) == {number(reference)}
    assert follower.index.candidates(frozenset({name}), frozenset({"CREATED"})) == set()
    assert follower.index.states(name) == {"START": 1}


def test_attribute_of_a_run_is_heard(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    follower.hear()
    for value in (3.0, 4.0):
        change(follower.workflow, reference, lambda run, v=value: setattr(run, "y", v))
        assert follower.hear() == [(number(reference), "CREATED", "CREATED")]
        assert follower.index.rows[number(reference)]["y"] == value


def test_value_that_is_no_scalar_is_heard_but_not_kept(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    follower.hear()
    change(follower.workflow, reference, lambda run: setattr(run, "y", [1]))
    assert [run_id for run_id, _, _ in follower.hear()] == [number(reference)]
    assert "y" not in follower.index.rows[number(reference)]


def test_entries_in_further_buckets_are_heard(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    change(follower.workflow, reference, lambda run: run.entries.update({f"e{i:03}": i for i in range(100)}))
    follower.hear()
    for name in ("e000", "e050", "e099", "state"):
        change(follower.workflow, reference, lambda run, n=name: run.entries.update({n: "changed"}))
        assert [run_id for run_id, _, _ in follower.hear()] == [number(reference)]
        assert follower.index.rows[number(reference)][name] == "changed"
    change(follower.workflow, reference, lambda run: run.entries.update({f"f{i:03}": i for i in range(100)}))
    change(follower.workflow, reference, lambda run: run.entries.update({"f077": "changed"}))
    follower.hear()
    assert follower.index.rows[number(reference)]["f077"] == "changed"


def test_deleted_run_is_heard(follower: Follower) -> None:
    first, second = create_tasks(follower.workflow, x=[1, 2])
    follower.hear()
    delete(follower.workflow, first)
    assert follower.hear() == [(number(first), "CREATED", None)]
    assert number(first) not in follower.index.rows
    assert follower.index.states(follower.workflow.run_name) == {"CREATED": 1}
    set_state(follower.workflow, second, "START")
    assert follower.hear() == [(number(second), "CREATED", "START")]


def test_runs_of_several_hundred_are_heard_one_by_one(follower: Follower) -> None:
    """The tree of runs splits its buckets again and again."""
    heard: list[int] = []
    created: list[int] = []
    for batch in range(10):
        created += map(number, create_tasks(follower.workflow, x=[batch * 30 + i for i in range(30)]))
        heard += [run_id for run_id, before, _ in follower.hear() if before is None]
    assert heard == created
    set_state(follower.workflow, f"mult.{created[150]}", "START")
    assert follower.hear() == [(created[150], "CREATED", "START")]


def test_runs_of_several_hundred_are_heard_together(follower: Follower) -> None:
    created = [number(r) for r in create_tasks(follower.workflow, x=[float(i) for i in range(300)])]
    assert [run_id for run_id, _, _ in follower.hear()] == created
    delete(follower.workflow, *(f"mult.{i}" for i in created[10:290]))
    assert [(i, after) for i, _, after in follower.hear()] == [(i, None) for i in created[10:290]]
    again = [number(r) for r in create_tasks(follower.workflow, x=[float(i) for i in range(300)])]
    assert [run_id for run_id, _, _ in follower.hear()] == again[10:290]


def test_job_whose_parameters_change_is_heard_through_its_runs(follower: Follower) -> None:
    references = create_tasks(follower.workflow, x=[1234.0], n=1)
    references += create_tasks(follower.workflow, run_params={"note": "b"}, x=[1234.0], n=1)
    create_tasks(follower.workflow, x=1235.0)
    follower.hear()
    select = follower.workflow.mult.select

    def work() -> None:
        job = select("x = 1234")[0][1]
        job.x = 4321.0
        assert len(select("x = 4321")) == 2  # its own writes
        assert len(select("x = 1234")) == 0

    transact("change", work)
    assert [run_id for run_id, _, _ in follower.hear()] == sorted(map(number, references))
    assert len(select("x = 4321")) == 2
    transact("back", lambda: setattr(select("x = 4321")[0][1], "x", 1234.0))


def test_changes_of_another_process_are_heard(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    follower.hear()
    script = """
        import sys, BlackDynamite as BD
        run = BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[int(sys.argv[2])]
        run.start()
        run.finish()
    """
    study = follower.workflow.mult.study_dir
    run_python(script, study, number(reference), cwd=study)
    assert follower.hear() == [(number(reference), "CREATED", "FINISHED")]


def test_all_runs_can_go_and_others_come(make_workflow: Callable[..., Workflow]) -> None:
    """The last bucket of the tree of runs goes away, and a new one takes its place."""
    yaml = "task_managers: {mult: }\norchestrator: orchestrator.main\n"
    workflow = make_workflow(studies=("mult",), yaml=yaml)
    from motoko_core.lifecycle import create_missing

    create_missing(workflow)
    workflow.run_name = "w"
    follower = Follower(workflow)
    for count in (100, 3, 100, 0, 1):
        created = create_tasks(workflow, x=[float(i) for i in range(count)])
        assert [run_id for run_id, _, _ in follower.hear()] == [number(r) for r in created]
        delete(workflow, *created)
        assert [run_id for run_id, _, _ in follower.hear()] == [number(r) for r in created]
        assert follower.index.rows == {}
    follower.agree()


# ------------------------------------------------------------------ what is not announced


def test_rescan_finds_what_was_missed(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = create_tasks(follower.workflow, x=[1, 2])
    follower.hear()
    monkeypatch.setattr(follower.index._storage, "_invalidate", lambda tid, oids: None)
    set_state(follower.workflow, first, "START")
    delete(follower.workflow, second)
    (third,) = create_tasks(follower.workflow, x=3)
    monkeypatch.undo()
    assert follower.hear() == []
    follower.index.rescan()
    assert follower.hear() == [
        (number(first), "CREATED", "START"),
        (number(second), "CREATED", None),
        (number(third), None, "CREATED"),
    ]


def test_overflow_of_announcements_makes_a_rescan(follower: Follower) -> None:
    (reference,) = create_tasks(follower.workflow, x=1)
    follower.hear()
    set_state(follower.workflow, reference, "START")
    follower.workflow.mult.database.db._mvcc_storage.invalidateCache()  # poll_invalidations answers None
    assert follower.hear() == [(number(reference), "CREATED", "START")]


def test_nothing_is_lost_when_the_server_goes_away_while_it_is_read(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = create_tasks(follower.workflow, x=[1, 2])
    follower.hear()
    set_state(follower.workflow, first, "START")

    def gone(*_: object) -> None:
        raise ClientDisconnected

    for method in ("_load", "fill_from"):
        monkeypatch.setattr(RunTable, method, gone)
        with pytest.raises(ClientDisconnected):
            follower.index.refresh()
    monkeypatch.undo()
    set_state(follower.workflow, second, "FINISHED")
    assert follower.hear() == [(number(first), "CREATED", "START"), (number(second), "CREATED", "FINISHED")]


# ------------------------------------------------------------------ filling


def test_table_is_the_same_from_the_file_and_from_the_server(follower: Follower) -> None:
    workflow, index = follower.workflow, follower.index
    first, *others = create_tasks(workflow, x=[float(i) for i in range(100)])
    set_state(workflow, first, "START")
    change(workflow, first, lambda run: run.entries.update({f"e{i:03}": [i] for i in range(100)}))
    change(workflow, others[0], lambda run: setattr(run, "Y", 2.0))
    change(workflow, others[1], lambda run: setattr(run, "y", [2.0]))
    delete(workflow, *others[2:60])
    index.refresh()
    index._manager.begin()
    from_file = index._filled_from_file()
    from_server = RunTable(index._connection)
    from_server.fill()
    index._manager.abort()
    for name in ("rows", "jobs", "groups", "jobless"):
        assert getattr(from_file, name) == getattr(from_server, name)
    for name in ("_run_of", "_job_of"):
        assert list(getattr(from_file, name).items()) == list(getattr(from_server, name).items())
    assert set(from_file._runs_of_job) == set(from_server._runs_of_job)
    for keys in ("_run_keys", "_job_keys"):
        assert getattr(from_file, keys)._buckets == getattr(from_server, keys)._buckets
    assert {i: from_file.rows.oid(i) for i in from_file.rows} == {
        i: from_server.rows.oid(i) for i in from_server.rows
    }


def test_file_that_cannot_be_read_quickly_is_no_obstacle(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tasks(workflow, x=[1, 2])

    def refuse(*_: object) -> None:
        raise Unexpected("it is odd")

    monkeypatch.setattr(RunTable, "fill_from", refuse)
    index = RunIndex(workflow.mult.database)
    assert index.rows == workflow.mult.database.index.rows
    index.close()


def test_index_is_ahead_of_its_client_and_no_session_is_told_nonsense(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has what the client will be told of in a moment."""
    (reference,) = create_tasks(workflow, x=1)

    def look_late(file: LocalFile) -> EarlierRecords:
        set_state(workflow, reference, "START")
        return latest(file)

    with use(Session("before")) as session:
        assert [run.state for run, _ in workflow.mult.select()] == ["CREATED"]
        latest = LocalFile.latest
        monkeypatch.setattr(LocalFile, "latest", look_late)
        index = RunIndex(workflow.mult.database)
        assert index.rows[number(reference)]["state"] == "START"
        start = session.connection(workflow.mult.database)._storage._start
        assert index.changed_since(start) is None  # any run may look different there
        assert index.snapshot > start
        index.close()


def test_index_that_is_ahead_of_the_announcements_is_not_set_back(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    run_id, storage = number(reference), workflow.mult.database.db.storage
    set_state(workflow, reference, "FAILED")
    told = p64(u64(storage.lastTransaction()) + 1)
    set_state(workflow, reference, "FINISHED")
    index, heard = RunIndex(workflow.mult.database), []
    index.listeners.append(heard.extend)

    def announced() -> list[bytes]:
        """The client has heard of the first change only."""
        index._storage._start = told
        return [p64(oid) for oid, of_run in index._table._run_of.items() if of_run == run_id]

    with monkeypatch.context() as patch:
        patch.setattr(index, "_poll", announced)
        index.refresh()
        assert index.rows.value(run_id, "state") == "FINISHED"
    index.refresh()
    assert index.rows.value(run_id, "state") == "FINISHED"
    assert index._polled == []  # what was announced meanwhile was looked at all the same
    assert [(change.before, change.after) for change in heard] == [("FINISHED", "FINISHED")]
    index.close()


def test_file_of_another_server_is_not_read(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks the same, and has one transaction more."""
    create_tasks(workflow, x=1)
    database = workflow.mult.database
    database.db.storage.file = None
    other = RecordFile(database.server.data)
    other._transactions.append(other._transactions[-1] + 1)
    monkeypatch.setattr(other, "follow", lambda: None)  # it would find that this one is not in the file
    monkeypatch.setattr(database, "_local", LocalFile(database.server.data, other))
    index = RunIndex(database)
    assert index.rows == database.index.rows
    assert database.db.storage.file is None
    index.close()


def test_run_with_an_object_among_its_values_is_read_by_itself(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are still read from the file, and so is it when the index is filled."""
    odd, _ = map(str, create_tasks(follower.workflow, x=[1, 2]))
    follower.hear()
    monkeypatch.setattr(RunTable, "fill", Mock(side_effect=AssertionError))
    change(follower.workflow, odd, lambda run: run.entries.update({"mine": [PersistentMapping()]}))
    change(follower.workflow, odd, lambda run: run.entries.update({"state": "START"}))
    assert follower.hear() == [(number(odd), "CREATED", "START")]
    follower.index.rescan()
    assert follower.hear() == []
    assert follower.workflow.mult.database.db.storage.file is not None


def test_objects_of_a_later_time_than_the_server_has_told_of_are_not_had(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be ahead for a moment; if it stays ahead, it is not the server's."""
    (reference,) = create_tasks(workflow, x=1)
    index, storage = workflow.mult.database.index, workflow.mult.database.db.storage
    index.refresh()
    oid = index.rows.oid(number(reference))
    end = p64(u64(storage.lastTransaction()) + 1)
    with index._as_of(end) as get:
        assert get(oid)._p_oid == oid
    caught_up: list[bool] = []
    monkeypatch.setattr(storage, "catch_up", lambda: caught_up.append(True))
    with index._as_of(p64(u64(end) + 2**32)) as get, pytest.raises(Unexpected, match="future"):
        get(oid)
    assert caught_up == [True]


# ------------------------------------------------------------------ telling


def test_listeners_are_told_in_their_order(follower: Follower) -> None:
    order: list[str] = []
    for name in ("first", "second"):
        follower.index.listeners.append(lambda changes, n=name: order.append(n))
    create_tasks(follower.workflow, x=1)
    follower.index.refresh()
    assert order == ["first", "second"]
    del follower.index.listeners[-2:]


def test_announcements_go_to_everybody_until_they_stop(follower: Follower) -> None:
    heard: list[str] = []
    stops = [follower.index.on_announcement(lambda n=name: heard.append(n)) for name in ("first", "second")]
    (reference,) = create_tasks(follower.workflow, x=1)
    assert set(heard) == {"first", "second"}
    stops[0]()  # in the order in which they began
    heard.clear()
    set_state(follower.workflow, reference, "START")
    assert set(heard) == {"second"}
    stops[1]()
    heard.clear()
    set_state(follower.workflow, reference, "FINISHED")
    assert heard == []


def test_closing_gives_the_connection_back_as_it_was(workflow: Workflow) -> None:
    index = RunIndex(workflow.mult.database)
    storage = index._storage
    assert "_invalidate" in vars(storage)
    index.close()
    assert not {"poll_invalidations", "_invalidate", "_invalidateCache"} & vars(storage).keys()
