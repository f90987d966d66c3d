"""Commits in conflict: all of a session or nothing, and the work is called again."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from motoko_core import session as sessions
from motoko_core.errors import ConflictRetriesExceeded
from motoko_core.session import Session, transact, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state, states


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "backoff_s", lambda attempt: 0)


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


def test_default_session_conflict_is_raised_by_the_commit(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    workflow.get_runs([reference])["mult"][0].state = "MINE"
    set_state(workflow, reference, "THEIRS")
    with pytest.raises(ConflictError):
        transaction.commit()
    transaction.abort()
    assert list(states(workflow).values()) == ["THEIRS"]
