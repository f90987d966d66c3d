"""What a selection knows of its tasks without reading them, and when it must read them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import transaction

from motoko_core.errors import StaleObjectError
from motoko_core.session import Session, transact, use
from motoko_core.study.known import AnsweredNames
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state


def is_read(handed: Any) -> bool:
    """Whether an object was read from the database."""
    return handed.__wrapped__._p_changed is not None


@pytest.fixture
def references(workflow: Workflow) -> list[str]:
    """Three tasks, in the index, and in no connection's memory."""
    references = create_tasks(workflow, x=[1.0, 2.0, 3.0], run_params={"note": "a"})
    assert len(workflow.mult.select()) == 3
    transaction.abort()
    workflow.mult.database.close()
    return references


def test_values_are_known_without_reading(workflow: Workflow, references: list[str]) -> None:
    with use(Session("it")):
        tasks = list(iter(workflow.mult.select()))
        assert [f"mult.{run.id}" for run, _ in tasks] == references
        assert [(run.state, run["run_name"]) for run, _ in tasks] == [("CREATED", workflow.run_name)] * 3
        assert [(job.x, job["x"]) for _, job in tasks] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
        assert not any(is_read(handed) for task in tasks for handed in task)
        assert not hasattr(tasks[0][1], "n")
        assert all(is_read(job) for _, job in tasks)


def test_what_is_not_known_is_read_together(workflow: Workflow, references: list[str]) -> None:
    with use(Session("it")):
        tasks = list(iter(workflow.mult.select()))[:2]
        assert tasks[0][0].note == "a"
        assert all(is_read(run) for run, _ in tasks)
        with pytest.raises(AttributeError, match="nothing"):
            _ = tasks[1][0].nothing
        with pytest.raises(KeyError):
            _ = tasks[1][1]["nothing"]
        assert sorted(tasks[1][1].keys()) == ["id", "x"]


@pytest.mark.parametrize("by", ["itself", "another", "item", "entries", "object in memory"])
def test_session_sees_its_own_changes(workflow: Workflow, references: list[str], by: str) -> None:
    with use(Session("it")):
        if by == "object in memory":
            assert workflow.mult.run(int(references[0].partition(".")[2])).state == "CREATED"
        (run, _), *_ = workflow.mult.select()
        assert run.state == "CREATED"
        if by == "itself":
            run.state = "DONE"
        elif by == "item":
            run["state"] = "DONE"
        elif by == "entries":
            run.entries["state"] = "DONE"
        else:
            workflow.get_runs(references[:1])["mult"][0].state = "DONE"
        assert (run.state, run["state"]) == ("DONE", "DONE")
        assert [run.state for run, _ in workflow.mult.select()] == ["DONE", "CREATED", "CREATED"]


@pytest.mark.parametrize("together", [1, 3])
def test_changes_during_a_loop_are_seen(
    workflow: Workflow, references: list[str], monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr("motoko_core.study.query.PORTION", together)
    with use(Session("it")):
        seen = []
        for run, _ in workflow.mult.select():
            seen.append(run.state)
            for other in workflow.get_runs(references)["mult"]:
                other.state = "DONE"
        assert seen == ["CREATED", "DONE", "DONE"]


def test_undone_change_is_seen_as_undone(workflow: Workflow, references: list[str]) -> None:
    (run, _), *_ = workflow.mult.select()
    run.state = "DONE"
    (again, _), *_ = workflow.mult.select()
    savepoint = transaction.savepoint()
    run.state = "FAILED"
    assert (run.state, again.state) == ("FAILED", "FAILED")
    savepoint.rollback()
    assert (run.state, again.state) == ("DONE", "DONE")
    transaction.abort()
    assert (run.state, again.state) == ("CREATED", "CREATED")


def test_transaction_goes_on_seeing_what_it_saw(workflow: Workflow, references: list[str]) -> None:
    with use(Session("it")) as session:
        tasks = list(iter(workflow.mult.select()))
        with_the_index_ahead = iter(workflow.mult.select())
        transact("others", lambda: set_state(workflow, references[0], "DONE"))
        assert transact("others", lambda: len(workflow.mult.select("state = DONE"))) == 1
        assert [run.state for run, _ in tasks] == ["CREATED"] * 3
        assert [run.state for run, _ in with_the_index_ahead] == ["CREATED"] * 3
        session.checkpoint()
        assert [run.state for run, _ in tasks] == ["DONE", "CREATED", "CREATED"]


def test_script_sees_what_others_commit_with_its_next_selection(
    workflow: Workflow, references: list[str]
) -> None:
    (run, _), *_ = workflow.mult.select()
    assert run.state == "CREATED"
    set_state(workflow, references[0], "DONE")
    assert len(workflow.mult.select("state = DONE")) == 1
    assert run.state == "DONE"


def test_what_is_known_ends_with_the_session(workflow: Workflow, references: list[str]) -> None:
    with use(Session("it")):
        (run, job), *_ = workflow.mult.select()
        assert (run.state, job.x) == ("CREATED", 1.0)
    for use_it in (lambda: run.state, lambda: run["state"], lambda: job.x):
        with pytest.raises(StaleObjectError):
            use_it()


def test_script_may_copy_what_it_selects(workflow: Workflow, references: list[str]) -> None:
    _ = workflow.mult.base.Job  # BlackDynamite's copy is made in the study that was used last
    ((_, job), *_) = workflow.mult.select()
    duplicate: Callable[[Any], Any]
    for duplicate in (copy.deepcopy, lambda job: job.copy()):
        assert duplicate(job).entries["x"] == 1.0


def test_names_that_an_object_hides_are_not_answered(workflow: Workflow) -> None:
    config = workflow.mult.study_config
    hidden = {"items": float, "types": str, "optional": bool, "key_x": float}
    names = AnsweredNames(attrs.evolve(config, job={**hidden, "x": float}))
    assert names.jobs == {"id", "x"}
    assert {"id", "state", "run_name"} <= names.runs


@pytest.mark.parametrize("is_filled", [False, True])
@pytest.mark.parametrize("name", ["n", "N"])
def test_attributes_are_not_taken_for_entries(workflow: Workflow, name: str, is_filled: bool) -> None:
    first_x = 700.0 + 10 * is_filled + (name == "N")  # jobs that no other test has
    create_tasks(workflow, x=[first_x, first_x + 100, first_x + 200])

    def change() -> None:
        (run, one), (_, two), _ = list(workflow.mult.select())
        setattr(one, name, 5)
        one.entries["n"] = 7
        setattr(two, name, 5)
        run.run_path = "here"

    transact("a script", change)
    if is_filled:  # the index, with what is there already
        workflow.mult.database.close()
    expected = 5 if name == "n" else None
    with use(Session("it")):
        (run, one), (_, two), (_, three) = workflow.mult.select()
        assert (one.n, one["n"]) == (expected or 7, 7)
        assert getattr(two, "n", None) == expected
        assert run.run_path == "here"
        for lacking in (lambda: two["n"], lambda: three["n"], lambda: run["run_path"]):
            with pytest.raises(KeyError):
                lacking()
