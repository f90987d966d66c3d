"""Databases: connecting, creating, closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import transaction
from ZEO.Exceptions import ClientDisconnected

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.errors import StudyError
from motoko_core.session import transact
from motoko_core.study.index import RunIndex
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, states
from tests.processes import run_python, runzeo

YAML = "task_managers: {mult: }\norchestrator: orchestrator.main\n"


def test_study_is_not_created_twice(workflow: Workflow) -> None:
    with pytest.raises(StudyError, match="study 'mult' has a database already"):
        workflow.mult.database.create()


def test_study_that_was_not_created_is_an_error_with_a_hint(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow(studies=("mult",), yaml=YAML)
    workflow.run_name = "w"
    assert not workflow.mult.database.exists
    with pytest.raises(StudyError, match="has no database yet") as raised:
        workflow.mult.createTask(x=1)
    assert "motoko create" in str(raised.value)
    assert not (Path(workflow.mult.study_dir) / ".bd" / "bd.zeo").exists()


def test_creation_that_was_cut_short_can_be_repeated(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow(studies=("mult",), yaml=YAML)
    data = workflow.mult.database.server.data
    data.parent.mkdir()
    data.with_name("new-bd.zeo").write_bytes(b"half")
    data.with_name("new-bd.zeo.lock").write_text("")
    lifecycle.create_missing(workflow)
    assert sorted(path.name for path in data.parent.iterdir() if path.name.startswith("new-")) == []
    workflow.run_name = "w"
    assert create_tasks(workflow, x=1) == ["mult.1"]


def test_renamed_study_is_an_error_that_names_the_file(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow(studies=("mult",), yaml=YAML)
    lifecycle.create_missing(workflow)
    path = Path(workflow.mult.study_dir) / "bd.yaml"
    path.write_text(path.read_text().replace("study: mult", "study: other"))
    renamed = Workflow(workflow.config_path)
    with pytest.raises(StudyError, match="holds no study 'other', only") as raised:
        len(renamed.mult.select())
    assert str(path) in str(raised.value)
    assert "motoko create" in str(raised.value)
    lifecycle.disconnect(renamed)


def test_closed_database_connects_again(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    assert len(workflow.mult.select()) == 1
    lifecycle.disconnect(workflow)
    assert not workflow.mult.database.is_connected
    assert len(workflow.mult.select()) == 1


def test_closing_drops_what_the_default_session_has_not_committed(workflow: Workflow) -> None:
    workflow.mult.createTask(x=1)
    workflow.mult.database.close()
    transaction.commit()
    assert states(workflow) == {}


def test_two_workflow_objects_share_the_data(workflow: Workflow) -> None:
    other = Workflow(workflow.config_path)
    other.run_name = workflow.run_name
    create_tasks(workflow, x=1)
    assert len(other.mult.select()) == 1
    lifecycle.disconnect(other)


def test_study_whose_name_has_an_underscore(make_workflow: Callable[..., Workflow]) -> None:
    """BlackDynamite takes it for a whole schema name: a user, and a study."""
    from tests.processes import run_python

    workflow = make_workflow(
        studies=("my_study",), yaml="task_managers: {my_study: }\norchestrator: orchestrator.main\n"
    )
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    assert create_tasks(workflow, "my_study", x=1) == ["my_study.1"]
    script = """
        import sys, BlackDynamite as BD
        print(BD.Base(host="zeo://" + sys.argv[1], study="my_study").runs[1].state)
    """
    study = workflow.task_managers["my_study"].study_dir
    assert run_python(script, study, cwd=study).splitlines()[-1] == "CREATED"


def test_names_for_constraints_are_those_of_bd_yaml(workflow: Workflow) -> None:
    names = workflow.mult.database.names
    assert names.jobs == {"id": int, "x": float, "n": int, "label": str, "items": list}
    assert names.runs["note"] is str
    assert names.runs["event_name"] is str
    assert transact("look", lambda: len(workflow.mult.select("event_name = nobody"))) == 0


def test_closing_does_not_wait_for_a_thread_that_reads_from_a_paused_server(
    make_workflow: Callable[..., Workflow],
) -> None:
    workflow = make_workflow(studies=("mult",), yaml=YAML)
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    create_tasks(workflow, x=1)
    database = workflow.mult.database
    announced = threading.Event()
    database.index.on_announcement(announced.set)
    script = """
        import sys, BlackDynamite as BD
        BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[1].start()
    """
    run_python(script, workflow.mult.study_dir, cwd=workflow.mult.study_dir)
    assert announced.wait(TIMEOUT_S)
    database.db.storage.file = None  # as if the server were on another machine
    server = runzeo(database)
    server.suspend()
    raised: list[Exception] = []

    def read() -> None:
        try:
            database.index.refresh()
        except ClientDisconnected as error:
            raised.append(error)

    reader = threading.Thread(target=read, daemon=True)
    closer = threading.Thread(target=database.close, daemon=True)
    try:
        index = database.index
        reader.start()
        assert wait_until(lambda: not _can_lock(index), TIMEOUT_S)
        closer.start()
        closer.join(TIMEOUT_S)
        reader.join(TIMEOUT_S)
        assert not closer.is_alive()
        assert not reader.is_alive()
        assert len(raised) == 1
    finally:
        server.resume()


def _can_lock(index: RunIndex) -> bool:
    free: bool = index.lock.acquire(blocking=False)
    if free:
        index.lock.release()
    return free
