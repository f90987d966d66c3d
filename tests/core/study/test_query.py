"""Finding runs: what the shortcuts answer is what a look at every run would."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motoko_core.session import Session, transact, use
from motoko_core.study import index as index_module
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state
from tests.zeo_clients import caught_up, falling_behind

STATES = ["CREATED", "START", "FINISHED", "FAILED"]

#: A constraint, and the same in Python.
CONSTRAINTS: list[tuple[str, Callable[[Any, Any], bool]]] = [
    ("state = FINISHED", lambda r, j: r["state"] == "FINISHED"),
    ("state != FINISHED", lambda r, j: r["state"] != "FINISHED"),
    ("state in (START, FAILED)", lambda r, j: r["state"] in ("START", "FAILED")),
    ("state = START or x > 2", lambda r, j: r["state"] == "START" or j["x"] > 2),
    ("not (state = START)", lambda r, j: r["state"] != "START"),
    ("state = START, state = FAILED", lambda r, j: False),
    ("x = 2", lambda r, j: j["x"] == 2),
    ("jobs.x >= 2 and state = CREATED", lambda r, j: j["x"] >= 2 and r["state"] == "CREATED"),
    ("note = b", lambda r, j: r.get("note") == "b"),
    ("note ~ '^[ab]$' and x < 3", lambda r, j: r.get("note") in ("a", "b") and j["x"] < 3),
    ("items = [1]", lambda r, j: j.get("items") == [1]),
    ("nproc = 2 or note = a", lambda r, j: r["nproc"] == 2 or r.get("note") == "a"),
]


def ids(workflow: Workflow, constraint: Any) -> list[int]:
    return [run.id for run, _ in workflow.mult.select(constraint)]


def naive(workflow: Workflow, wanted: Callable[[Any, Any], bool]) -> list[int]:
    base = workflow.mult.base
    return [
        run_id
        for run_id, run in base.runs.entries.items()
        if run.entries["run_name"] == workflow.run_name
        and wanted(dict(run.entries), dict(base.jobs[run.entries["job_id"]].entries))
    ]


def check(workflow: Workflow) -> None:
    for text, wanted in CONSTRAINTS:
        assert ids(workflow, text) == naive(workflow, wanted), text


def scramble(workflow: Workflow, seed: int) -> None:
    """Change some runs, make one and delete one, in the current session."""
    chance = random.Random(seed)
    base = workflow.mult.base
    mine = [run for run in base.runs.entries.values() if run.entries["run_name"] == workflow.run_name]
    for run in chance.sample(mine, len(mine) // 2):
        run.entries["state"] = chance.choice(STATES)
        run.entries["note"] = chance.choice(["a", "b", "c"])
        run.entries["nproc"] = chance.choice([1, 2])
    workflow.mult.createTask({"note": str(seed)}, x=chance.choice([1, 2, 3]))
    if mine and chance.random() < 0.5:
        del base.runs[chance.choice(mine).id]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(mine=st.integers(0, 2**32), theirs=st.integers(0, 2**32))
def test_session_finds_what_a_look_at_every_run_finds(workflow: Workflow, mine: int, theirs: int) -> None:
    """In all of its states: with an old snapshot, and with changes of its own."""
    create_tasks(workflow, x=[1, 2, 3], items=[1])
    with use(Session("it")) as session:
        check(workflow)
        transact("they", lambda: scramble(workflow, theirs))
        check(workflow)
        session.checkpoint()
        check(workflow)
        scramble(workflow, mine)
        transact_quietly(workflow, theirs + 1)
        check(workflow)
        session.abort()
        session.begin()
        check(workflow)


def transact_quietly(workflow: Workflow, seed: int) -> None:
    transact("they", lambda: scramble(workflow, seed))


@pytest.mark.parametrize("constraint", ["state = CREATED", "state = CREATED and x > 0"])
def test_commit_that_the_index_takes_in_meanwhile_is_not_seen(workflow: Workflow, constraint: str) -> None:
    """As the feed's thread does it, at any moment."""
    references = create_tasks(workflow, x=[1, 2, 3])
    first, second, third = (int(reference.rpartition(".")[2]) for reference in references)
    with use(Session("it")) as session:
        query = workflow.mult.select(constraint)._query()
        assert query.count() == 3

        def take_in(work: Callable[[], object]) -> None:
            transact("they", work)
            workflow.mult.database.index.refresh()

        take_in(lambda: setattr(workflow.mult.run(first), "state", "FINISHED"))
        assert query.ids() == [first, second, third]
        take_in(lambda: setattr(workflow.mult.run(second), "state", "FINISHED"))
        assert query.count() == 3
        take_in(lambda: workflow.mult.base.runs.__delitem__(third))
        assert query.matches(third)
        pair = query.pair(third)
        assert pair is not None
        assert pair[0].entries["id"] == third
        session.checkpoint()
        assert workflow.mult.select(constraint)._query().ids() == []


def last_heard(workflow: Workflow, other: Workflow) -> None:
    """Wait until a workflow's client has heard of what another one has committed."""
    tid: bytes = other.mult.database.db.storage.lastTransaction()
    caught_up(workflow.mult.database.db.storage, tid)


@pytest.mark.parametrize("gap", ["the connection was lost", "all runs are compared"])
def test_run_that_looks_as_before_a_gap_is_found_as_it_was_in_between(
    workflow: Workflow, other: Workflow, gap: str
) -> None:
    first, second = create_tasks(workflow, x=[1, 2])
    database = workflow.mult.database
    database.index.refresh()
    with falling_behind(database.db.storage, cut=gap == "the connection was lost"):
        set_state(other, first, "START")
    last_heard(workflow, other)
    with use(Session("it")):
        ((run,),) = workflow.get_runs([first]).values()
        assert run.state == "START"
        set_state(other, first, "CREATED")
        last_heard(workflow, other)
        if gap == "all runs are compared":
            database.index.rescan()
        assert ids(workflow, "state = START") == [number(first)]
        assert ids(workflow, "state = CREATED") == [number(second)]


def test_comparing_all_runs_costs_the_sessions_under_way_nothing(workflow: Workflow) -> None:
    first, _ = create_tasks(workflow, x=[1, 2])
    database = workflow.mult.database
    database.index.refresh()
    with use(Session("it")) as session:
        start: bytes = session.connection(database)._storage._start
        set_state(workflow, first, "START")
        database.index.rescan()
        assert database.index.changed_since(start) == {number(first)}


@pytest.mark.parametrize("cause", ["the index is filled later", "the log is full"])
def test_run_that_was_deleted_since_is_still_found(
    workflow: Workflow, other: Workflow, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setattr(index_module, "_LOG_LENGTH", 1)
    references = create_tasks(workflow, x=[1, 2, 3])
    database = other.mult.database
    if cause == "the log is full":
        database.index.refresh()
    with use(Session("it")) as session:
        session.connection(database)
        for change in (
            lambda: transact("delete", lambda: delete(workflow, references[1])),
            lambda: set_state(workflow, references[0], "CREATED", note="changed"),
        ):
            change()
            if cause == "the log is full":
                last_heard(other, workflow)
                database.index.refresh()
        assert ids(other, None) == list(map(number, references))
        assert len(other.mult.select()) == 3


def delete(workflow: Workflow, reference: str) -> None:
    del workflow.mult.base.runs[number(reference)]


def test_ids_are_looked_up_directly(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    references = create_tasks(workflow, x=[1, 2, 3])
    first, second, third = (int(reference.rpartition(".")[2]) for reference in references)
    monkeypatch.setattr(index_module.RunIndex, "candidates", None)  # nobody may go through the table
    with use(Session("it")):
        assert ids(workflow, f"runs.id = {second}") == [second]
        assert ids(workflow, f"runs.id in ({first}, {third}, 999999)") == [first, third]
        assert ids(workflow, "runs.id = 999999") == []


def test_attribute_that_bd_yaml_declares_is_found(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1, 2])

    def work() -> None:
        ((run, _),) = workflow.mult.select("x = 1")
        run.note = "set as an attribute"  # `note` is declared, but the run has no entry of this name
        assert len(workflow.mult.select("note ~ attribute")) == 1

    transact("it", work)
    assert len(workflow.mult.select("note ~ attribute")) == 1


def test_run_of_another_workflow_run_is_not_found(workflow: Workflow) -> None:
    name = workflow.run_name
    (reference,) = create_tasks(workflow, x=1)
    workflow.run_name = f"{name}-other"
    create_tasks(workflow, x=1)
    assert len(workflow.mult.select()) == 1
    assert len(workflow.mult.select(f"run_name = '{name}'")) == 0
    assert len(workflow.mult.select("state = CREATED or state = FINISHED")) == 1
    workflow.run_name = None
    both = f"run_name = '{name}' or run_name = '{name}-other'"
    assert len(workflow.mult.select(both)) == 2
    set_state(workflow, reference, "FINISHED")
    assert len(workflow.mult.select(["state = FINISHED", both])) == 1


def test_run_whose_name_changes_is_found_under_the_new_one(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    name = workflow.run_name
    with use(Session("it")):
        ((run, _),) = workflow.mult.select()
        run.run_name = f"{name}-new"
        assert len(workflow.mult.select()) == 0
        workflow.run_name = f"{name}-new"
        assert len(workflow.mult.select()) == 1


def test_runs_whose_job_is_gone_are_left_out(workflow: Workflow) -> None:
    create_tasks(workflow, x=[771, 772])
    with use(Session("it")):
        ((run, _),) = workflow.mult.select("x = 771")
        del workflow.mult.base.jobs[run.job_id]
        assert [job.x for _, job in workflow.mult.select()] == [772.0]
