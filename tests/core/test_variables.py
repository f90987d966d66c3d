"""Workflow variables: values that outlive the orchestrator and are never lost silently."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from motoko_core import session as sessions
from motoko_core.daemons import wait_until
from motoko_core.errors import MotokoError
from motoko_core.session import Session, transact, use
from motoko_core.variables import WorkflowVars
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks
from tests.processes import run_python


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "backoff_s", lambda attempt: 0)


@pytest.fixture
def variables(workflow: Workflow) -> WorkflowVars:
    """The variables of the shared workflow, without those of other tests."""

    def empty() -> None:
        for name in dir(workflow.vars):
            delattr(workflow.vars, name)

    transact("empty", empty)
    return workflow.vars


def stored(variables: WorkflowVars, name: str) -> Any:
    """What is committed."""
    return transact("look", lambda: getattr(variables, name))


def write(variables: WorkflowVars, name: str, value: Any) -> None:
    """Set a variable in a transaction of its own."""
    transact("write", lambda: setattr(variables, name, value))


class Fit:
    """An object of the user's own; the value of the attribute is equal to its name."""

    def __init__(self) -> None:
        self.__dict__["".join(["sl", "ope"])] = "".join(["slo", "pe"])


# ------------------------------------------------------------------ names


def test_value_is_set_read_listed_and_deleted(variables: WorkflowVars) -> None:
    variables.best = 3
    variables.worst = None
    transaction.commit()
    assert (stored(variables, "best"), stored(variables, "worst")) == (3, None)
    assert dir(variables) == ["best", "worst"]
    del variables.best
    assert not hasattr(variables, "best")
    transaction.commit()
    assert transact("look", lambda: dir(variables)) == ["worst"]


def test_missing_name_lists_those_that_exist(variables: WorkflowVars) -> None:
    with pytest.raises(AttributeError, match="no variable 'best'; it has: none"):
        variables.best  # noqa: B018
    variables.beast, variables.rest = 1, 2
    with pytest.raises(AttributeError, match="no variable 'best'; it has: beast, rest"):
        variables.best  # noqa: B018
    with pytest.raises(AttributeError, match="no variable 'best'; it has: beast, rest"):
        del variables.best
    assert getattr(variables, "best", 7) == 7


@pytest.mark.parametrize("name", ["db_fname", "database", "db", "conn", "root", "watch", "__len__", "__x"])
def test_name_that_could_not_be_read_again_is_refused(variables: WorkflowVars, name: str) -> None:
    with pytest.raises(MotokoError, match=f"cannot be called '{name}'"):
        setattr(variables, name, 1)


# ------------------------------------------------------------------ changes in place

CHANGES = [
    ([1], lambda v: v.append(2), [1, 2]),
    ({"a": {"b": [1]}}, lambda v: v["a"]["b"].append(2), {"a": {"b": [1, 2]}}),
    ([{"a": 1}], lambda v: v[0].update(b=2), [{"a": 1, "b": 2}]),
    ({1, 2}, lambda v: v.add(3), {1, 2, 3}),
    (([1],), lambda v: v[0].append(2), ([1, 2],)),
]


@pytest.mark.parametrize(("before", "change", "after"), CHANGES)
def test_change_in_place_is_stored(variables: WorkflowVars, before: Any, change: Any, after: Any) -> None:
    write(variables, "it", before)
    transact("change", lambda: change(variables.it))
    assert stored(variables, "it") == after


@pytest.mark.parametrize(("before", "change", "after"), CHANGES)
def test_change_in_place_of_what_was_just_set_is_stored(
    variables: WorkflowVars, before: Any, change: Any, after: Any
) -> None:
    value = pickle.loads(pickle.dumps(before))

    def work() -> None:
        variables.it = value
        change(value)
        assert variables.it is value

    transact("change", work)
    assert stored(variables, "it") == after


def test_change_in_place_after_a_checkpoint_is_stored(variables: WorkflowVars) -> None:
    write(variables, "it", [])
    with use(Session("main")) as main:
        it = variables.it
        for number in range(3):
            it.append(number)
            main.checkpoint()
            assert stored(variables, "it") == list(range(number + 1))
        assert variables.it is it


def test_change_in_place_in_the_default_session_is_stored(variables: WorkflowVars) -> None:
    variables.it = []
    it = variables.it
    for number in range(3):
        it.append(number)  # nothing tells the transaction that this happened
        transaction.commit()
        assert stored(variables, "it") == list(range(number + 1))


def test_change_in_place_is_stored_by_the_next_commit_however_it_begins(variables: WorkflowVars) -> None:
    write(variables, "it", [])
    it = variables.it
    transaction.begin()
    variables.it.append(0)
    transaction.commit()
    assert stored(variables, "it") == [0]
    assert it == []  # begin aborts what was there, and forgets it


def test_aborted_change_in_place_leaves_nothing(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    with use(Session("it")) as session:
        variables.it.append(2)
        session.abort()
        session.begin()
        assert variables.it == [1]
        session.commit()
    variables.it.append(3)
    transaction.abort()
    assert variables.it == [1]
    transaction.commit()
    assert stored(variables, "it") == [1]


def test_reading_writes_nothing(variables: WorkflowVars) -> None:
    write(variables, "it", [Fit(), {"slope": "".join(["slo", "pe"])}, {str(n) for n in range(50)}])
    with use(Session("reader")) as session:
        assert variables.it[0].slope == "slope"
        before = variables.db.lastTransaction()
        session.checkpoint()
        assert variables.db.lastTransaction() == before


def test_object_whose_pickle_changes_on_the_way_is_changed_in_place(variables: WorkflowVars) -> None:
    """Unpickling interns attribute names, which makes one string of two: the pickle is another one."""
    with use(Session("main")) as main:
        variables.it = Fit()
        main.checkpoint()
        variables.it.slope = 3
        main.checkpoint()
        variables.db.cacheMinimize()  # the stored value is read anew
        variables.it.slope += 1
        main.checkpoint()
    assert stored(variables, "it").slope == 4


def test_change_in_the_default_session_does_not_reach_the_session_beside_it(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    variables.it.append(2)
    with use(Session("firing")):
        assert variables.it == [1]
        transaction.commit()  # as BlackDynamite's methods do, of the thread's transaction
        assert variables.it == [1]
    assert stored(variables, "it") == [1, 2]


# ------------------------------------------------------------------ several sessions


def test_sessions_that_change_different_variables_both_commit(variables: WorkflowVars) -> None:
    write(variables, "left", [])
    write(variables, "right", 0)
    with use(Session("one")) as one:
        variables.left.append(1)
        with use(Session("two")) as two:
            variables.right = 1
            two.commit()
        one.commit()
    assert (stored(variables, "left"), stored(variables, "right")) == ([1], 1)


@pytest.mark.parametrize("change", [lambda v: v.it.append(1), lambda v: setattr(v, "it", [1])])
def test_sessions_that_change_the_same_variable_are_in_conflict(variables: WorkflowVars, change: Any) -> None:
    write(variables, "it", [])
    with use(Session("one")) as one:
        change(variables)
        transact("two", lambda: variables.it.append(2))
        with pytest.raises(ConflictError):
            one.commit()
    assert stored(variables, "it") == [2]


def test_concurrent_changes_are_all_stored(variables: WorkflowVars) -> None:
    write(variables, "it", [])
    write(variables, "count", 0)

    def work(number: int) -> None:
        variables.it.append(number)
        variables.count += 1

    threads = [
        threading.Thread(target=lambda n=n: [transact("it", partial(work, 10 * n + i)) for i in range(5)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored(variables, "it")) == [10 * n + i for n in range(4) for i in range(5)]
    assert stored(variables, "count") == 20


def test_value_of_others_is_seen_after_a_checkpoint(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    with use(Session("main")) as main:
        assert variables.it == [1]
        write(variables, "it", [2])
        assert variables.it == [1]
        main.checkpoint()
        assert variables.it == [2]


def test_change_to_a_copy_that_is_out_of_date_is_not_lost_silently(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    with use(Session("main")) as main:
        it = variables.it
        main.checkpoint()
        write(variables, "it", [2])
        main.checkpoint()
        it.append(3)
        with pytest.raises(ConflictError, match="'it' was changed by somebody else"):
            main.commit()
    with use(Session("main")) as main:
        it = variables.it
        main.checkpoint()
        write(variables, "it", [4])
        main.checkpoint()
        assert variables.it == [4]  # another copy: the first one is out of date
        it.append(5)
        with pytest.raises(ConflictError, match="'it' was changed by somebody else"):
            main.commit()
    assert stored(variables, "it") == [4]


def test_change_beside_one_of_others_is_noticed_at_the_next_look(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    variables.it.append(3)
    write(variables, "it", [2])
    with pytest.raises(ConflictError, match="'it' was changed"):
        variables.it  # noqa: B018
    transaction.abort()
    assert variables.it == [2]


def test_change_of_a_deleted_variable_is_a_conflict(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    it = variables.it
    transact("delete", lambda: delattr(variables, "it"))
    it.append(2)
    with pytest.raises(ConflictError):
        transaction.commit()
    transaction.abort()
    assert not hasattr(variables, "it")


# ------------------------------------------------------------------ values that cannot be stored


def test_value_that_cannot_be_pickled_is_refused_by_name(variables: WorkflowVars) -> None:
    with pytest.raises(MotokoError, match="the workflow variable 'callback' cannot hold"):
        variables.callback = lambda: None
    variables.it = []
    variables.it.append(threading.Lock())
    with pytest.raises(MotokoError, match="the workflow variable 'it' cannot hold"):
        transaction.commit()
    transaction.abort()
    with use(Session("it")) as session:
        variables.it = []
        variables.it.append(threading.Lock())
        with pytest.raises(MotokoError, match="the workflow variable 'it' cannot hold"):
            session.commit()


@pytest.mark.parametrize("managed", [True, False])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": (v,)}])
def test_run_or_job_is_refused(workflow: Workflow, managed: bool, wrap: Any) -> None:
    create_tasks(workflow, x=1)

    def work() -> None:
        ((run, job),) = workflow.mult.select()
        for task in (run, job):
            with pytest.raises(MotokoError, match=r"(?s)'it' cannot hold.*store its reference"):
                workflow.vars.it = wrap(task)

    transact("it", work) if managed else work()


# ------------------------------------------------------------------ other processes and other versions


def test_another_process_reads_and_writes_while_sessions_are_open(variables: WorkflowVars) -> None:
    write(variables, "it", [1])
    script = """
        import sys, transaction
        from motoko.workflow import Workflow
        variables = Workflow(sys.argv[1]).vars
        variables.it.append(2)
        variables.reply = variables.it
        transaction.commit()
        variables.database.close()
    """
    with use(Session("main")) as main:
        assert variables.it == [1]
        run_python(script, str(Path(variables.db_fname).parents[1] / "motoko.yaml"))
        assert not hasattr(variables, "reply")
        main.checkpoint()
        assert variables.reply == [1, 2]
        variables.it.append(3)
        main.commit()
    assert stored(variables, "it") == [1, 2, 3]


def test_variables_of_motoko_0_1_are_read_changed_and_deleted(variables: WorkflowVars) -> None:
    def as_then() -> None:
        variables.root["old"] = [1]
        variables.root["number"] = 1

    transact("0.1", as_then)
    assert dir(variables) == ["number", "old"]
    assert variables.number == 1
    transact("change", lambda: variables.old.append(2))
    assert stored(variables, "old") == [1, 2]
    write(variables, "number", 2)
    assert stored(variables, "number") == 2
    transact("delete", lambda: (delattr(variables, "old"), delattr(variables, "number")))
    assert transact("look", lambda: dir(variables)) == []  # the old values do not come back


def test_persistent_object_is_stored_itself(variables: WorkflowVars) -> None:
    from BTrees.OOBTree import OOBTree

    write(variables, "tree", OOBTree())
    transact("change", lambda: variables.tree.update({"a": 1}))
    assert transact("look", lambda: dict(variables.tree)) == {"a": 1}


def test_variables_stand_alone(variables: WorkflowVars) -> None:
    alone = WorkflowVars(variables.db_fname)
    assert alone.db_fname == variables.db_fname
    alone.it = [1]
    transaction.commit()
    # Two clients: the other one hears of the commit a moment later.
    assert wait_until(lambda: transact("look", lambda: getattr(variables, "it", None)) == [1], 10)
    alone.database.close()


def test_variables_stand_alone_in_their_place_only(tmp_path: Path) -> None:
    with pytest.raises(MotokoError, match=r"other\.db.* is not the place"):
        WorkflowVars(tmp_path / "other.db")


def test_watcher_hears_of_commits_until_it_stops(variables: WorkflowVars) -> None:
    heard = threading.Event()
    stop = variables.watch(heard.set)
    write(variables, "it", 1)
    assert heard.is_set()
    stop()
    heard.clear()
    write(variables, "it", 2)
    assert not heard.is_set()
