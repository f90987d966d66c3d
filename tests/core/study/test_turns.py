"""Creators side by side: nothing is lost, nothing doubled, and everybody gets through."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from ZODB.POSException import ConflictError

from motoko_core.daemons import wait_until
from motoko_core.session import Session, transact, use
from motoko_core.study import database, turns
from motoko_core.study.records import PORTION
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, orchestrate, set_state, states
from tests.processes import ROOT

#: More than fits into one portion, so that it takes a while and goes through a file.
MANY = PORTION + 200

# Creates single tasks, each in a transaction of its own, as fast as it can, until a file appears.
SINGLES = """
import itertools, sys, transaction
from pathlib import Path
from motoko_core.workflow import Workflow

path, run_name, label, begun, stop = sys.argv[1:]
workflow = Workflow(path)
workflow.run_name = run_name
for number in itertools.count(1):
    workflow.mult.createTask(n=number, label=f"{label} {run_name}")
    transaction.commit()
    Path(begun).touch()
    if Path(stop).exists():
        break
print(number)
"""
SWEEP = """
import sys, transaction
from motoko_core.workflow import Workflow

path, run_name, how, label, count = sys.argv[1:]
workflow = Workflow(path)
workflow.run_name = run_name
workflow.mult.createTask(n=range(int(count)), label=f"{label} {run_name}", commit=how == "commit=True")
transaction.commit()
"""


def start(script: str, workflow: Workflow, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, workflow.config_path, workflow.run_name, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return out.strip()


@contextmanager
def busy(workflow: Workflow, directory: Path) -> Iterator[Callable[[], int]]:
    """A process that creates single tasks in a tight loop; the context gets a function to end it."""
    begun, stop = directory / "begun", directory / "stop"
    process = start(SINGLES, workflow, "single", begun, stop)
    try:
        assert wait_until(begun.exists, TIMEOUT_S), process.poll()

        def end() -> int:
            stop.touch()
            return int(ended(process))

        yield end
    finally:
        process.kill()
        process.communicate()


def check(workflow: Workflow, **expected: int) -> None:
    """So many tasks of each label, each once, with consecutive ids."""

    def look() -> list[tuple[int, int, str, int]]:
        return [(r.id, j.id, j.label, j.n) for r, j in workflow.mult.select()]

    tasks = transact("the test", look)
    for column in (0, 1):
        ids = sorted(task[column] for task in tasks)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    for label, count in expected.items():
        numbers = sorted(n for _, _, of, n in tasks if of == f"{label} {workflow.run_name}")
        assert len(numbers) == len(set(numbers)) == count
    assert len(tasks) == sum(expected.values())


def test_sweeps_and_single_creators_of_other_processes_get_through(
    workflow: Workflow, tmp_path: Path
) -> None:
    ways = ("commit=True", "commit")
    with busy(workflow, tmp_path) as end:
        sweeps = [start(SWEEP, workflow, way, way, MANY) for way in ways]
        for sweep in sweeps:
            ended(sweep)
        check(workflow, **dict.fromkeys(ways, MANY), single=end())


def test_creator_that_is_killed_holds_nobody_up(workflow: Workflow, tmp_path: Path) -> None:
    begun = tmp_path / "victim"
    victim = start(SINGLES, workflow, "victim", begun, tmp_path / "never")
    try:
        with busy(workflow, tmp_path) as end:
            assert wait_until(begun.exists, TIMEOUT_S), victim.poll()
            victim.kill()
            victim.communicate()
            ended(start(SWEEP, workflow, "commit", "sweep", 100))
            singles = end()
    finally:
        victim.kill()
        victim.communicate()
    left = transact("look", lambda: len(workflow.mult.select("label ~ ^victim")))
    assert left
    check(workflow, sweep=100, single=singles, victim=left)


async def test_firing_gets_through_beside_another_process(workflow: Workflow, tmp_path: Path) -> None:
    """What it has concluded may be wrong when its turn comes: then it is called again, in its turn."""
    attempts = 0

    def sweep(workflow: Workflow) -> None:
        nonlocal attempts
        attempts += 1
        if not workflow.mult.select("state = START"):
            workflow.mult.createTask(n=range(100), label=f"sweep {workflow.run_name}")
        workflow.finished = True

    async def main(workflow: Workflow) -> None:
        workflow.add_action("sweep", task="mult", event=lambda: True, f=sweep)

    workflow.orchestrator_function = main
    with busy(workflow, tmp_path) as end:
        await asyncio.wait_for(workflow.execute_async(), 3 * TIMEOUT_S)
        singles = await asyncio.to_thread(end)
    check(workflow, sweep=100, single=singles)
    assert attempts <= 3


# ------------------------------------------------------------------ when a turn ends


@pytest.fixture
def lines(tmp_path: Path) -> tuple[turns.Turns, turns.Turns]:
    """The turns in one study, as two processes have them."""
    return turns.Turns(tmp_path), turns.Turns(tmp_path)


def is_free(line: turns.Turns) -> bool:
    with line.held(Session("the other"), 0.0) as others:
        free = others is not None
    if line._holder is not None:
        line.end(line._holder)
    return free


@pytest.mark.parametrize("how", ["commit", "abort"])
def test_turn_ends_with_the_transaction(lines: tuple[turns.Turns, turns.Turns], how: str) -> None:
    ours, theirs = lines
    with use(Session("it")) as session:
        with ours.held(session, 0.0):
            pass
        assert not is_free(theirs)
        getattr(session, how)()
        assert is_free(theirs)


async def test_turn_ends_when_user_code_awaits(lines: tuple[turns.Turns, turns.Turns]) -> None:
    ours, theirs = lines
    with use(Session("it")) as session:
        with ours.held(session, 0.0):
            pass
        assert not is_free(theirs)
        await asyncio.sleep(0)
        assert is_free(theirs)


def test_turn_ends_when_a_script_idles(
    lines: tuple[turns.Turns, turns.Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_IDLE_S", 0.01)
    ours, theirs = lines
    with use(Session("it")) as session:
        with ours.held(session, 0.0):
            assert not is_free(theirs)
        assert wait_until(lambda: is_free(theirs), TIMEOUT_S)


def test_turn_lasts_as_long_as_the_commit(
    lines: tuple[turns.Turns, turns.Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_IDLE_S", 0.01)
    ours, theirs = lines
    free: list[bool] = []
    with use(Session("it")) as session:
        with ours._guard:  # the commit begins before the time is over
            with ours.held(session, 0.0):
                timed_out = threading.Event()
                time_out = ours._time_out
                monkeypatch.setattr(ours, "_time_out", lambda turn: (time_out(turn), timed_out.set()))
            ours._holder.beforeCompletion(None)  # type: ignore[union-attr]

        def look() -> None:
            timed_out.clear()
            assert timed_out.wait(TIMEOUT_S)
            free.append(is_free(theirs))

        look()
        session.commit()
    assert free == [False]
    assert is_free(theirs)


def test_session_takes_over_from_one_that_is_suspended(lines: tuple[turns.Turns, turns.Turns]) -> None:
    ours, theirs = lines
    with use(Session("first")) as first, ours.held(first, 0.0):
        pass
    with use(Session("first")) as first:
        with ours.held(first, 0.0):
            pass
        with use(Session("second")) as second:
            with ours.held(second, 0.0) as others:
                assert others is False
            first.abort()
            assert not is_free(theirs)
            second.abort()
        assert is_free(theirs)


async def test_who_waits_is_next(lines: tuple[turns.Turns, turns.Turns]) -> None:
    ours, theirs = lines
    with use(Session("it")) as session, use(Session("next")) as following:
        with theirs.held(session, 0.0):
            coming = asyncio.create_task(ours.come(following))
            await asyncio.sleep(0)
            assert not coming.done()
        # They stand in line again at once, and are not served before us.
        assert theirs._holder is not None
        theirs.end(theirs._holder)
        assert not is_free(theirs)
        await coming
        assert not is_free(theirs)


async def test_turn_that_has_come_outlasts_the_transaction_before(
    lines: tuple[turns.Turns, turns.Turns],
) -> None:
    """An event that is called directly works in a session that goes on: in its turn it begins anew."""
    ours, theirs = lines
    with use(Session("it")) as session:
        await ours.come(session)
        session.abort()
        session.begin()
        assert not is_free(theirs)
        with ours.held(session, 0.0) as others:
            assert others is False
        session.abort()
        assert is_free(theirs)


async def test_orchestrator_goes_ahead_beside_a_process_that_keeps_its_turn(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A script that was stopped with Ctrl-Z, for one."""
    monkeypatch.setattr(turns, "LIMIT_S", 0.05)
    stopped = turns.Turns(workflow.mult.database.server.directory)

    async def main(workflow: Workflow) -> None:
        workflow.mult.createTask(x=[1.0, 2.0])

    with use(Session("stopped")) as session, stopped.held(session, TIMEOUT_S):
        await orchestrate(workflow, main)
    assert len(states(workflow)) == 2
    assert "going ahead beside it" in caplog.text


@pytest.mark.parametrize(
    ("order", "waits_s"), [(("add", "mult"), turns.LIMIT_S), (("mult", "add"), database._OUT_OF_ORDER_S)]
)
def test_turns_in_several_studies_are_waited_for_in_one_order(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str], waits_s: float
) -> None:
    held = turns.Turns.held
    patience: list[float] = []

    def noted(line: turns.Turns, session: Session, patience_s: float) -> AbstractContextManager[bool | None]:
        patience.append(patience_s)
        return held(line, session, patience_s)

    monkeypatch.setattr(turns.Turns, "held", noted)
    with use(Session("it")) as session:
        for study in order:
            workflow.task_managers[study].createTask(x=1.0)
        session.commit()
    assert patience == [turns.LIMIT_S, waits_s]


def test_without_locks_tasks_are_created_without_turns(
    workflow: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # Lustre, as it often is mounted

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(turns, "_known", {})
    assert turns.turns_in(tmp_path) is None
    create_tasks(workflow, x=[1.0, 2.0])
    assert len(states(workflow)) == 2


async def test_waiting_in_line_can_be_cancelled(lines: tuple[turns.Turns, turns.Turns]) -> None:
    ours, theirs = lines
    with use(Session("it")) as session, use(Session("next")) as following:
        with theirs.held(session, 0.0):
            coming = asyncio.create_task(ours.come(following))
            await asyncio.sleep(0)
            coming.cancel()
            await asyncio.wait({coming})
        assert theirs._holder is not None
        theirs.end(theirs._holder)
        assert is_free(theirs)
        assert is_free(ours)


# ------------------------------------------------------------------ what a session has seen meanwhile


def create_elsewhere(workflow: Workflow, *, in_this_process: bool = False) -> None:
    """In a connection of its own, past the turns of this process unless it is to be one of its own."""
    with use(Session("elsewhere")) as session:
        workflow.mult.createTask(x=99.0)
        session.commit()
    holder = workflow.mult.database._turns
    assert holder is not None
    if not in_this_process:
        os.ftruncate(holder._turn._fd, 0)  # another process would have signed it


@pytest.mark.parametrize("in_this_process", [True, False])
def test_session_that_has_seen_nothing_moves_on(workflow: Workflow, in_this_process: bool) -> None:
    with use(Session("it")) as session:
        session.connection(workflow.mult.database)
        create_elsewhere(workflow, in_this_process=in_this_process)
        workflow.mult.createTask(x=1.0)
        session.commit()
    assert transact("look", lambda: sorted(j.x for _, j in workflow.mult.select())) == [1.0, 99.0]


@pytest.mark.parametrize("what", ["searched", "changed", "read what was changed"])
def test_session_that_has_seen_the_old_state_is_in_conflict(workflow: Workflow, what: str) -> None:
    (reference,) = create_tasks(workflow, x=0.0)
    with use(Session("it")):
        if what == "searched":
            len(workflow.mult.select())
        run = workflow.get_runs([reference])["mult"][0]
        assert run.state == "CREATED"
        if what == "changed":
            run.state = "MINE"
        if what == "read what was changed":
            set_state(workflow, reference, "FINISHED")
        create_elsewhere(workflow)
        with pytest.raises(ConflictError):
            workflow.mult.createTask(x=1.0)
