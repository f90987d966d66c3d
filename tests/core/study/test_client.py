"""What is read of a damaged database, and of one with objects of unknown classes."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import maxtid, p64

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.errors import DatabaseFault, MotokoError
from motoko_core.session import transact
from motoko_core.study.database import Database
from motoko_core.study.server import Server
from motoko_core.study.snapshot import snapshot
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, states
from tests.faults import overwrite
from tests.processes import run_python

ONE_STUDY = "task_managers: {mult: }\norchestrator: orchestrator.main\n"


@pytest.fixture
def filled(server: Server) -> Server:
    """A database of two objects, closed in good order."""
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    for name in ("good", "bad"):
        connection.root()[name] = PersistentMapping(word=f"the {name} one")
    manager.commit()
    connection.root()["tree"] = OOBTree(last=1)
    manager.commit()  # behind what is damaged: the server looks at the end when it starts
    connection.close()
    database.close()
    stop_servers([server])
    return server


def read(server: Server, name: str) -> str:
    database = Database(server)
    try:
        with_manager = transaction.TransactionManager()
        connection = database.open(with_manager)
        try:
            return str(connection.root()[name]["word"])
        finally:
            connection.close()
    finally:
        database.close()


def test_record_that_the_server_cannot_read_is_named_with_the_command_that_mends(filled: Server) -> None:
    start_servers([filled])  # it has looked at the file: from now on damage is met where it is read
    place = filled.data.read_bytes().index(b"the bad one")
    begin = filled.data.read_bytes().rindex(b"cpersistent.mapping", 0, place) - 42
    overwrite(filled.data, begin, b"\0" * 20)
    assert read(filled, "good") == "the good one"
    with pytest.raises(DatabaseFault, match=r"is damaged: object 0x\w+: CorruptedDataError ") as raised:
        read(filled, "bad")
    assert f"{sys.executable} -m ZODB.fsrecover bd.zeo recovered" in str(raised.value)


def test_object_that_cannot_be_read_is_named_and_the_others_can(filled: Server) -> None:
    place = filled.data.read_bytes().index(b"the bad one")
    overwrite(filled.data, place - 8, b"\xff" * 8)
    assert read(filled, "good") == "the good one"
    with pytest.raises(DatabaseFault) as raised:
        read(filled, "bad")
    text = str(raised.value)
    assert text.startswith(f"{filled.data}: the database of study 'it' is damaged: object 0x")
    assert "(PersistentMapping) cannot be read: " in text
    assert "backup" in text


def test_object_that_is_not_there_is_named(filled: Server) -> None:
    opened = FileStorage(str(filled.data))
    (oid,) = (r.oid for txn in opened.iterator() for r in txn if b"the bad one" in (r.data or b""))
    txn = TransactionMetaData()
    opened.tpc_begin(txn)
    opened.deleteObject(oid, opened.getTid(oid), txn)
    opened.tpc_vote(txn)
    opened.tpc_finish(txn)
    opened.close()
    assert read(filled, "good") == "the good one"
    with pytest.raises(DatabaseFault, match="lacks an object that others refer to: object 0x") as raised:
        read(filled, "bad")
    assert isinstance(raised.value, POSKeyError)  # for those who expect one
    assert "(PersistentMapping)" in str(raised.value)


# ---------------------------------------------------------------------- classes


@pytest.fixture
def with_lost_class(make_workflow: Callable[..., Workflow], tmp_path: Path) -> Workflow:
    """A workflow whose run 1 holds an object of a class that only another process could import."""
    workflow = make_workflow(studies=("mult",), yaml=ONE_STUDY)
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    create_tasks(workflow, x=[1, 2])
    (tmp_path / "lost.py").write_text("class Thing:\n    size = 3\n")
    script = """
        import sys
        sys.path.insert(0, sys.argv[2])
        import lost, transaction
        from motoko.workflow import Workflow

        workflow = Workflow(sys.argv[1])
        workflow.run_name = "w"
        ((run, job), *_) = workflow.mult.select("runs.id = 1")
        run.thing = lost.Thing()
        run.entries["other"] = lost.Thing()
        workflow.vars.thing = lost.Thing()
        workflow.vars.number = 7
        transaction.commit()
    """
    run_python(script, workflow.config_path, tmp_path)
    return workflow


def test_class_that_cannot_be_imported_is_named_once_and_all_else_goes_on(
    with_lost_class: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    workflow = with_lost_class
    caplog.set_level(logging.WARNING, "motoko")
    assert states(workflow) == {1: "CREATED", 2: "CREATED"}

    def change() -> None:
        for run, _ in workflow.mult.select():
            run.state = "SEEN"
            run.entries["note"] = "changed"

    transact("the test", change)
    assert states(workflow) == {1: "SEEN", 2: "SEEN"}
    lines = [line for line in caplog.messages if "lost" in line]
    assert len(lines) == 1
    assert lines[0].startswith("study 'mult': 'thing' of run 1 holds an object of the class lost.Thing, ")
    assert "cannot be imported" in lines[0]
    database = workflow.mult.database
    with snapshot("mult", database.config, None) as content:
        assert [run.entries["state"] for run in content.runs()] == ["SEEN", "SEEN"]


def test_object_of_a_lost_class_survives_a_change_beside_it(
    with_lost_class: Workflow, tmp_path: Path
) -> None:
    workflow = with_lost_class

    def change() -> None:
        for run, _ in workflow.mult.select():
            run.entries["note"] = "changed"
            run.more = 5

    transact("the test", change)
    script = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from motoko.workflow import Workflow

        workflow = Workflow(sys.argv[1])
        ((run, job),) = workflow.mult.select("runs.id = 1")
        print(run.thing.size, run.entries["other"].size, run.entries["note"], run.more)
    """
    assert run_python(script, workflow.config_path, tmp_path) == "3 3 changed 5"


def test_variable_of_a_lost_class_is_an_error_that_names_it(with_lost_class: Workflow) -> None:
    workflow = with_lost_class
    assert workflow.vars.number == 7
    with pytest.raises(MotokoError) as raised:
        workflow.vars.thing  # noqa: B018
    assert "the workflow variable 'thing' is an object of the class lost.Thing" in str(raised.value)
    transaction.abort()


def test_what_is_read_in_advance_complains_to_nobody(
    filled: Server, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(filled)
    storage = database.db.storage
    stop_servers([filled])
    assert wait_until(lambda: not storage.is_connected(), 10)
    storage.prefetch([p64(1)], maxtid)
    database.close()  # ends the network thread
    gc.collect()
    assert "never retrieved" not in caplog.text
