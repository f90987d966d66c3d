"""Sessions: isolation, snapshots, and reading one's own writes."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from motoko_core.session import Session, current_session, transact, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state, states


def ids(selection: Any) -> list[int]:
    return [run.id for run, _ in selection]


# ------------------------------------------------------------------ isolation


def test_sessions_do_not_see_each_others_uncommitted_work(workflow: Workflow) -> None:
    with use(Session("one")):
        workflow.mult.createTask(x=1)
        workflow.vars.isolated = 1
        with use(Session("two")):
            assert len(workflow.mult.select()) == 0
            assert not hasattr(workflow.vars, "isolated")
        assert len(workflow.mult.select()) == 1
    assert len(workflow.mult.select()) == 0  # the default session, and session one was not committed


def test_default_sessions_work_is_not_in_a_session(workflow: Workflow) -> None:
    workflow.mult.createTask(x=1)
    with use(Session("inner")) as inner:
        assert len(workflow.mult.select()) == 0
        inner.commit()
    assert len(workflow.mult.select()) == 1
    transaction.abort()
    assert len(workflow.mult.select()) == 0


def test_abort_of_one_session_leaves_the_other_alone(workflow: Workflow) -> None:
    with use(Session("kept")) as kept:
        workflow.mult.createTask(x=1)
        with use(Session("dropped")) as dropped:
            workflow.add.createTask(x=2)
            dropped.abort()
        kept.commit()
    assert states(workflow, "mult") != {}
    assert states(workflow, "add") == {}


def test_global_commit_does_not_reach_into_a_session(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("it")):
        ((run, _),) = workflow.mult.select()
        run.start()  # BlackDynamite commits the thread's transaction before and after
        run.note = "mine"
        transaction.commit()
        assert states(workflow) == {number(reference): "CREATED"}
    assert states(workflow) == {number(reference): "CREATED"}


def test_global_abort_does_not_reach_into_a_session(workflow: Workflow) -> None:
    def work() -> None:
        workflow.mult.createTask(x=1)
        transaction.abort()

    transact("it", work)
    assert list(states(workflow).values()) == ["CREATED"]


def test_session_is_left_also_by_an_exception() -> None:
    outer = current_session()
    with pytest.raises(ZeroDivisionError), use(Session("it")):
        raise ZeroDivisionError
    assert current_session() is outer


# ------------------------------------------------------------------ reading one's own writes


def test_created_task_is_selected_before_the_commit(workflow: Workflow) -> None:
    with use(Session("it")):
        created = workflow.mult.createTask(x=[1, 2])
        assert ids(workflow.mult.select("x = 2")) == [created[1][0].id]
        assert len(workflow.mult.select("state = CREATED")) == 2


def test_changed_state_is_selected_before_the_commit(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1, 2])
    with use(Session("it")):
        (first, _), (second, _) = workflow.mult.select()
        first.state = "FINISHED"
        second.entries["state"] = "START"
        assert ids(workflow.mult.select("state = FINISHED")) == [first.id]
        assert ids(workflow.mult.select("state = START")) == [second.id]
        assert ids(workflow.mult.select("state = CREATED")) == []


def test_run_that_blackdynamite_inserts_is_selected_before_the_commit(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    with use(Session("it")):
        ((_, job),) = workflow.mult.select()
        base = workflow.mult.base
        run = base.Run()
        run["run_name"], run["machine_name"], run["nproc"] = workflow.run_name, "localhost", 1
        # BlackDynamite's index holds tuples of values without their names: all runs that it inserts into a
        # study need to have the same ones, or Python cannot order them.
        run["note"], run["exec"] = "a", ""
        run.attachToJob(job)
        assert len(workflow.mult.select()) == 2


def test_own_writes_are_selected_after_a_savepoint(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    with use(Session("it")) as it:
        ((run, _),) = workflow.mult.select()
        run.state = "FINISHED"
        workflow.mult.createTask(x=2)
        it.manager.savepoint()
        assert ids(workflow.mult.select("state = FINISHED")) == [run.id]
        assert len(workflow.mult.select()) == 2


def test_undone_work_is_not_selected(workflow: Workflow) -> None:
    with use(Session("it")) as it:
        workflow.mult.createTask(x=1)
        assert len(workflow.mult.select()) == 1
        it.abort()
        it.begin()
        assert len(workflow.mult.select()) == 0


# ------------------------------------------------------------------ one snapshot


def test_run_that_stops_matching_is_still_selected_in_the_snapshot(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("it")) as it:
        assert len(workflow.mult.select("state = CREATED")) == 1
        set_state(workflow, reference, "FINISHED")
        workflow.mult.database.index.refresh()
        assert workflow.mult.database.index.rows[number(reference)]["state"] == "FINISHED"
        assert len(workflow.mult.select("state = CREATED")) == 1
        assert len(workflow.mult.select("state = FINISHED")) == 0
        it.checkpoint()
        assert len(workflow.mult.select("state = CREATED")) == 0
        assert len(workflow.mult.select("state = FINISHED")) == 1


def test_run_that_appears_is_not_in_the_snapshot(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    with use(Session("it")) as it:
        assert len(workflow.mult.select()) == 1
        create_tasks(workflow, x=2)
        workflow.mult.database.index.refresh()
        assert len(workflow.mult.select()) == 1
        it.checkpoint()
        assert len(workflow.mult.select()) == 2


def test_snapshot_covers_runs_that_were_never_looked_at(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, x=[1, 2])
    with use(Session("it")):
        workflow.get_runs([first])  # opens the snapshot
        set_state(workflow, second, "FINISHED")
        assert len(workflow.mult.select("state = CREATED")) == 2
        assert workflow.get_runs([second])["mult"][0].state == "CREATED"


def test_snapshot_ahead_of_the_index_is_searched_whole(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZEO tells its readers one after the other: a session may know of a commit before the index does."""
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    index.refresh()
    monkeypatch.setattr(index, "refresh", lambda: None)
    set_state(workflow, reference, "FINISHED")
    create_tasks(workflow, x=2)
    with use(Session("it")):
        assert len(workflow.mult.select("state = FINISHED")) == 1
        assert len(workflow.mult.select("x = 2")) == 1


def test_snapshots_of_two_sessions_differ(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("old")):
        assert len(workflow.mult.select("state = CREATED")) == 1
        set_state(workflow, reference, "FINISHED")
        with use(Session("new")):
            assert len(workflow.mult.select("state = FINISHED")) == 1
        assert len(workflow.mult.select("state = CREATED")) == 1


def test_snapshot_older_than_the_change_log_is_consistent(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.study.index._LOG_LENGTH", 2)
    references = create_tasks(workflow, x=[1, 2, 3, 4])
    with use(Session("old")):
        assert len(workflow.mult.select("state = CREATED")) == 4
        for reference in references:
            set_state(workflow, reference, "FINISHED")
            workflow.mult.database.index.refresh()
        assert len(workflow.mult.select("state = CREATED")) == 4


# ------------------------------------------------------------------ the default session


def test_default_session_hands_out_the_objects_themselves(workflow: Workflow) -> None:
    ((run, _),) = workflow.mult.createTask(x=1)
    assert type(run).__name__ == "RunZEO"
    transaction.commit()
    assert run.state == "CREATED"
    run.state = "FINISHED"
    transaction.commit()
    assert list(states(workflow).values()) == ["FINISHED"]


def test_default_session_sees_what_others_commit(workflow: Workflow) -> None:
    assert len(workflow.mult.select()) == 0
    (reference,) = create_tasks(workflow, x=1)
    assert len(workflow.mult.select()) == 1
    set_state(workflow, reference, "FINISHED")
    assert len(workflow.mult.select("state = FINISHED")) == 1


def test_default_session_keeps_its_snapshot_while_it_changes_something(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, x=[1, 2])
    workflow.get_runs([first])["mult"][0].note = "changed"
    set_state(workflow, second, "FINISHED")
    assert len(workflow.mult.select("state = CREATED")) == 2
    transaction.commit()
    assert len(workflow.mult.select("state = CREATED")) == 1
