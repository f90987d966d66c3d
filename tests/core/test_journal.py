"""A transaction over several databases is there as a whole after ``kill -9`` at any point of its commit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ZEO.Exceptions import ClientDisconnected
from ZODB.mvccadapter import MVCCAdapterInstance

from motoko_core import journal as journal_module
from motoko_core.journal import Journal
from motoko_core.session import transact
from motoko_core.study import patience
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate
from tests.processes import runzeo

# Kills itself when the n-th of three databases is about to finish.
CHILD = """
import os, sys
from pathlib import Path
from typing import Any
from ZODB.mvccadapter import MVCCAdapterInstance
from motoko_core.session import Session, use
from motoko_core.journal import Journal
from motoko_core.workflow import Workflow

path, run_name, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
finish, done = MVCCAdapterInstance.tpc_finish, 0

def tpc_finish(self, *args):
    global done
    done += 1
    if done == fatal:
        os.kill(os.getpid(), 9)
    return finish(self, *args)

workflow = Workflow(path)
workflow.run_name = run_name
session = Session("the child")
session.journal = Journal(Path(workflow.directory) / ".wf", {})
with use(session):
    ((run,),) = workflow.get_runs([sys.argv[4]]).values()
    run.state = "FORWARDED"
    workflow.add.createTask(x=7.0, label=run_name)
    setattr(workflow.vars, "seen_" + run_name.replace("-", "_"), [1, 2])
    MVCCAdapterInstance.tpc_finish = tpc_finish
    session.commit()
"""


def clients(workflow: Workflow) -> dict[str, Any]:
    databases = [*(m.database for m in workflow.task_managers.values()), workflow.vars.database]
    return {d.key: d.connect for d in databases}


def outcome(workflow: Workflow, reference: str) -> tuple[str, int, bool]:
    def look() -> tuple[str, int, bool]:
        ((run,),) = workflow.get_runs([reference]).values()
        name = "seen_" + str(workflow.run_name).replace("-", "_")
        return run.state, len(workflow.add.select()), hasattr(workflow.vars, name)

    for database in (workflow.mult.database, workflow.add.database, workflow.vars.database):
        database.ping()  # recovery has clients of its own: ours may not have heard of all of it yet
    return transact("the test", look)


@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_a_commit_that_was_killed_is_completed_or_never_happened(workflow: Workflow, fatal: int) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, workflow.config_path, str(workflow.run_name), str(fatal), reference],
        check=False,
        capture_output=True,
        text=True,
    )
    assert child.returncode == -9, child.stderr
    journal = Journal(Path(workflow.directory) / ".wf", clients(workflow))
    assert len(list(journal.directory.glob("*.journal"))) == 1
    assert journal.recover() == (0 if fatal == 1 else 1)
    assert not list(journal.directory.glob("*.journal"))
    done = ("FORWARDED", 1, True)
    assert outcome(workflow, reference) == (("CREATED", 0, False) if fatal == 1 else done)


def test_a_commit_that_ends_well_leaves_no_journal(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, workflow.config_path, str(workflow.run_name), "0", reference],
        check=True,
    )
    assert child.returncode == os.EX_OK
    assert not list((Path(workflow.directory) / ".wf").glob("*.journal"))
    assert outcome(workflow, reference) == ("FORWARDED", 1, True)


def test_a_journal_that_was_not_written_to_its_end_is_dropped(workflow: Workflow) -> None:
    path = Path(workflow.directory) / ".wf" / "commit-half.journal"
    path.write_bytes(b"\x80\x04\x95")
    assert Journal(path.parent, clients(workflow)).recover() == 0
    assert not path.exists()


def test_what_cannot_be_completed_is_taken_back(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, workflow.config_path, str(workflow.run_name), "2", reference],
        check=False,
    )
    assert child.returncode == -9
    # Each study was in the transaction; a task in both makes the one that lacks it move on.
    others = [create_tasks(workflow, study, x=99.0)[0] for study in ("mult", "add")]
    journal = Journal(Path(workflow.directory) / ".wf", clients(workflow))
    assert journal.recover() == 1
    assert not list(journal.directory.glob("*.journal"))
    state, adds, seen = outcome(workflow, reference)
    assert (state, adds, seen) in [("CREATED", 1, False), ("FORWARDED", 2, True)]
    assert len(others) == 2


@pytest.mark.parametrize("happened", [0, 1, 2])
def test_taking_back_that_was_killed_is_ended_by_the_next_one(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, happened: int
) -> None:
    """It was killed, or the answer of the server was lost, after so many of two databases."""
    (reference,) = create_tasks(workflow, x=1.0)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, workflow.config_path, str(workflow.run_name), "3", reference],
        check=False,
    )
    assert child.returncode == -9
    # Now what is missing cannot be written any more.
    name = "seen_" + str(workflow.run_name).replace("-", "_")
    transact("the test", lambda: setattr(workflow.vars, name, "changed"))
    journal = Journal(Path(workflow.directory) / ".wf", clients(workflow))
    take_back, done = journal_module._take_back, []

    def killed(*arguments: Any) -> None:
        if len(done) < happened:
            done.append(take_back(*arguments))
        if len(done) == happened:
            raise ClientDisconnected

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_take_back", killed)
        with pytest.raises(ClientDisconnected):
            journal.recover()
    journal.recover()
    assert not list(journal.directory.glob("*.journal"))
    assert outcome(workflow, reference)[:2] == ("CREATED", 0)


def test_a_server_that_dies_between_two_finishes_tears_nothing(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    finish, calls = MVCCAdapterInstance.tpc_finish, []

    def lose_the_second(self: Any, *arguments: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise ClientDisconnected("the connection is gone")
        return finish(self, *arguments)

    monkeypatch.setattr(MVCCAdapterInstance, "tpc_finish", lose_the_second)
    fired = []

    async def forward(runs: Any, workflow: Workflow) -> None:
        fired.append(len(runs))
        workflow.add.createTask(x=7.0)
        workflow.vars.count = 1
        runs[0][0].state = "FORWARDED"

    async def main(workflow: Workflow) -> None:
        workflow.add_action("forward", task="mult", event="state = CREATED", f=forward)
        await workflow.mult.select("state = FORWARDED")
        workflow.finished = True

    asyncio.run(orchestrate(workflow, main))
    assert outcome(workflow, reference)[:2] == ("FORWARDED", 1)
    assert not list((Path(workflow.directory) / ".wf").glob("*.journal"))
    assert fired == [1]


@pytest.mark.parametrize("moment", ["before it connects", "when it has connected"])
def test_mending_does_not_wait_for_a_paused_server_in_the_event_loop(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    arguments = [workflow.config_path, str(workflow.run_name), "2", reference]
    subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False)
    journal = Journal(Path(workflow.directory) / ".wf", clients(workflow))
    databases = [*(m.database for m in workflow.task_managers.values()), workflow.vars.database]
    for database in databases:
        database.db  # noqa: B018  connect
        monkeypatch.setattr(database.pulse, "is_awaited", True)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    process = runzeo(workflow.add.database)
    connect = journal._connect[workflow.add.database.key]

    def pausing() -> Any:
        client = connect() if moment == "when it has connected" else None
        process.suspend()
        return client or connect()

    monkeypatch.setattr(journal, "_connect", {**journal._connect, workflow.add.database.key: pausing})
    try:
        with pytest.raises(ClientDisconnected):
            journal.recover()
    finally:
        process.resume()
    monkeypatch.undo()
    assert journal.recover() == 1
    assert outcome(workflow, reference) == ("FORWARDED", 1, True)
