"""Sessions: isolation, snapshots, atomic commits, conflicts, and objects whose session is over."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from motoko_core import session as sessions
from motoko_core.errors import ConflictRetriesExceeded, StaleObjectError
from motoko_core.session import Session, current_session, transact, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state, states
from tests.processes import run_python


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "backoff_s", lambda attempt: 0)


def ids(selection: Any) -> list[int]:
    return [run.id for run, _ in selection]


def number(reference: str) -> int:
    return int(reference.rpartition(".")[2])


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


# ------------------------------------------------------------------ conflicts


def test_transact_calls_the_work_again_after_a_conflict(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    attempts: list[str] = []

    def work() -> None:
        ((run, _),) = workflow.mult.select()
        attempts.append(run.state)
        if len(attempts) == 1:
            set_state(workflow, reference, "START")
        run.note = f"after {run.state}"
        run.state = "FINISHED"

    transact("it", work)
    assert attempts == ["CREATED", "START"]
    with use(Session("it")):
        ((run, _),) = workflow.mult.select()
        assert run.note == "after START"


def test_transact_gives_up_in_the_end(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_ATTEMPTS", 3)
    (reference,) = create_tasks(workflow, x=1)
    attempts = itertools.count(1)

    def work() -> None:
        ((run, _),) = workflow.mult.select()
        set_state(workflow, reference, f"S{next(attempts)}")
        run.state = "MINE"

    with pytest.raises(ConflictRetriesExceeded, match="counting: 3 attempts ended in conflicts") as raised:
        transact("counting", work)
    assert isinstance(raised.value.__cause__, ConflictError)
    assert next(attempts) == 4
    assert list(states(workflow).values()) == ["S3"]


def test_transact_undoes_the_work_when_it_raises(workflow: Workflow) -> None:
    def work() -> None:
        workflow.mult.createTask(x=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transact("it", work)
    assert states(workflow) == {}


def test_commit_over_studies_and_variables_is_all_or_nothing(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, "add", x=1)
    workflow.vars.both = "before"
    transaction.commit()
    with use(Session("loser")) as loser:
        workflow.mult.createTask(x=2)
        workflow.vars.both = "after"
        ((run, _),) = workflow.add.select()
        run.state = "MINE"
        set_state(workflow, reference, "THEIRS")
        with pytest.raises(ConflictError):
            loser.commit()
    assert states(workflow, "mult") == {}
    assert list(states(workflow, "add").values()) == ["THEIRS"]
    assert workflow.vars.both == "before"


def test_conflict_in_the_variables_undoes_the_studies(workflow: Workflow) -> None:
    workflow.vars.contended = 0
    transaction.commit()
    with use(Session("loser")) as loser:
        workflow.mult.createTask(x=2)
        workflow.vars.contended += 1
        workflow_of_others = Workflow(workflow.config_path)
        transact("winner", lambda: setattr(workflow_of_others.vars, "contended", 10))
        with pytest.raises(ConflictError):
            loser.commit()
        workflow_of_others.vars.database.close()
    assert states(workflow) == {}
    assert workflow.vars.contended == 10


def test_databases_are_locked_in_the_same_order_by_everybody(workflow: Workflow) -> None:
    """Otherwise two processes that commit to the same two studies could wait for each other for ever."""

    def order(*databases: Any) -> list[Any]:
        with use(Session("it")) as it:
            keys = {it.connection(database).sortKey(): database for database in databases}
        return [keys[key] for key in sorted(keys)]

    mult, add, variables = workflow.mult.database, workflow.add.database, workflow.vars.database
    other = Workflow(workflow.config_path)
    names = [str(database.server.address) for database in order(mult, add, variables)]
    assert names[-1] == str(variables.server.address)  # what marks something as done comes last
    for databases in itertools.permutations([other.add.database, other.mult.database, other.vars.database]):
        assert [str(database.server.address) for database in order(*databases)] == names
    for database in (other.add.database, other.mult.database, other.vars.database):
        database.close()


def test_callbacks_after_the_transaction_hear_how_it_went(workflow: Workflow) -> None:
    heard: list[bool] = []
    with use(Session("it")) as it:
        it.after.append(heard.append)
        it.checkpoint()
        it.after.append(heard.append)
    assert heard == [True, False]


# ------------------------------------------------------------------ stale objects


def stale_task(workflow: Workflow) -> tuple[Any, Any, str]:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("short")):
        ((run, job),) = workflow.mult.select()
        assert run.state == "CREATED"
    return run, job, reference


@pytest.mark.parametrize(
    "misuse",
    [
        lambda o: o.id,
        lambda o: o["id"],
        lambda o: o.entries,
        lambda o: setattr(o, "note", "lost"),
        lambda o: o.__setitem__("note", "lost"),
        lambda o: list(o),
        lambda o: "id" in o,
        lambda o: o.get_params(),
    ],
    ids=["attribute", "item", "entries", "set", "set item", "iterate", "contains", "method"],
)
def test_object_of_a_closed_session_refuses(workflow: Workflow, misuse: Any) -> None:
    run, job, reference = stale_task(workflow)
    with pytest.raises(StaleObjectError, match=f"^{reference} was handed out") as raised:
        misuse(run)
    assert f"workflow.get_runs(['{reference}'])" in str(raised.value)
    with pytest.raises(StaleObjectError, match=f"the job of {reference}"):
        misuse(job)


def test_method_of_a_stale_run_writes_nothing(workflow: Workflow) -> None:
    run, _, reference = stale_task(workflow)
    with pytest.raises(StaleObjectError):
        run.start()
    assert states(workflow) == {number(reference): "CREATED"}


def test_list_kept_from_a_session_is_stale(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1, 2])
    kept: list[Any] = []
    with use(Session("short")):
        kept += workflow.mult.select()
        kept += workflow.mult.createTask(x=3)
        kept += [(run, None) for run in workflow.get_runs([f"mult.{kept[0][0].id}"])["mult"]]
    for run, _ in kept:
        with pytest.raises(StaleObjectError):
            run.state  # noqa: B018


def test_hint_of_a_stale_object_works(workflow: Workflow) -> None:
    _, _, reference = stale_task(workflow)
    with use(Session("later")):
        assert workflow.get_runs([reference])["mult"][0].state == "CREATED"


def test_stale_object_is_printed_and_told_apart(workflow: Workflow) -> None:
    run, _, reference = stale_task(workflow)
    assert reference in repr(run)
    assert "over" in repr(run)
    assert not hasattr(run, "__fspath__")


def test_objects_of_a_session_survive_its_checkpoints(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("it")) as it:
        ((run, _),) = workflow.mult.select()
        set_state(workflow, reference, "START")
        it.checkpoint()
        assert run.state == "START"


def test_session_does_not_collect_what_user_code_has_dropped(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.session._HANDED", 10)
    create_tasks(workflow, x=[1, 2, 3])
    with use(Session("of days")) as it:
        kept = list(workflow.mult.select())
        for _ in range(20):
            list(workflow.mult.select())
        assert len(it._handed) <= 2 * (2 * len(kept) + 6) + 10
        assert {id(weak()) for weak in it._handed} >= {id(obj) for pair in kept for obj in pair}


def test_handed_out_object_is_what_it_says(workflow: Workflow) -> None:
    from BlackDynamite.run_zeo import RunZEO

    create_tasks(workflow, x=1)
    with use(Session("it")):
        ((run, job),) = workflow.mult.select()
        assert isinstance(run, RunZEO)
        assert run == workflow.mult.base.runs[run.id]
        assert run.getJob().id == job.id
        assert (run, job) in workflow.mult.select()
        with pytest.raises(TypeError, match="store its reference"):
            copy.deepcopy([run])


def test_run_that_is_stored_in_another_run_stays_readable(workflow: Workflow) -> None:
    """BlackDynamite scripts link runs of one study; the link has to lead to the run, not to our wrapper."""

    def work() -> None:
        (first, _), (second, _) = workflow.mult.createTask(x=[1, 2])
        second.previous = first
        second.entries["history"] = [first]

    transact("it", work)
    (identifier, *_) = states(workflow)
    script = """
        import sys, BlackDynamite as BD
        run = BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[int(sys.argv[2])]
        run._p_activate()
        print(type(run.__dict__["previous"]).__name__, run.__dict__["previous"].id, run.history[0].id)
    """
    printed = run_python(script, workflow.mult.study_dir, identifier + 1, cwd=workflow.mult.study_dir)
    assert printed == f"RunZEO {identifier} {identifier}"


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


def test_default_session_conflict_is_raised_by_the_commit(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    workflow.get_runs([reference])["mult"][0].state = "MINE"
    set_state(workflow, reference, "THEIRS")
    with pytest.raises(ConflictError):
        transaction.commit()
    transaction.abort()
    assert list(states(workflow).values()) == ["THEIRS"]


def test_session_is_left_also_by_an_exception() -> None:
    outer = current_session()
    with pytest.raises(ZeroDivisionError), use(Session("it")):
        raise ZeroDivisionError
    assert current_session() is outer
