"""Creating, starting and removing studies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from motoko_core import lifecycle
from motoko_core.errors import AlreadyRunning, MotokoError
from motoko_core.launch.daemon import launch, stop_launcher
from motoko_core.locks import held
from motoko_core.session import transact
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state
from tests.launching import SCRIPT, fifo, read_line

__all__ = ["fifo"]

Maker = Callable[..., Workflow]


def runs_of(workflow: Workflow, study: str = "mult") -> list[int]:
    return transact("the test", lambda: list(workflow.task_managers[study].base._get_runs().entries))


@pytest.fixture
def used(make_workflow: Maker) -> Workflow:
    """A created workflow with a task and a run directory."""
    workflow = make_workflow(launch=SCRIPT)
    workflow.create(validated=True)
    workflow.run_name = "w"
    create_tasks(workflow, n=1)
    run = lifecycle.runs_directory(workflow.mult) / "run-1"
    run.mkdir(parents=True)
    return workflow


def test_create_makes_all_studies_and_starts_their_servers(make_workflow: Maker) -> None:
    workflow = make_workflow()

    def never(question: str) -> bool:
        raise AssertionError(question)

    # There is nothing to drop, hence nothing to ask.
    assert lifecycle.create(workflow, None, never)
    assert workflow.is_empty()
    assert all(server.is_up() for server in lifecycle.servers(workflow))
    assert len(lifecycle.servers(workflow)) == 3


def test_create_asks_before_it_drops_anything(used: Workflow) -> None:
    asked: list[str] = []
    assert not lifecycle.create(used, None, lambda question: bool(asked.append(question)))
    assert runs_of(used) == [1]
    assert str(used.mult.database.server.data) in asked[0]
    assert str(lifecycle.runs_directory(used.mult)) in asked[0]

    assert lifecycle.create(used, False, lambda question: True)
    assert runs_of(used) == []
    assert not lifecycle.runs_directory(used.mult).exists()


@pytest.mark.parametrize(("answer", "created"), [("y", True), ("YES", True), ("n", False), ("", False)])
def test_the_question_is_put_to_the_terminal(
    used: Workflow, monkeypatch: pytest.MonkeyPatch, answer: str, created: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert used.create() is created
    assert runs_of(used) == ([] if created else [1])


def test_without_a_terminal_nothing_is_dropped(used: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(MotokoError, match="nobody to ask") as raised:
        used.create()
    assert "--validated" in str(raised.value)
    assert runs_of(used) == [1]


def test_create_refuses_while_an_orchestrator_runs(used: Workflow) -> None:
    lock = lifecycle.state_directory(used) / lifecycle.ORCHESTRATOR_LOCK
    with (
        held(lock, "the test", ""),
        pytest.raises(AlreadyRunning, match=f"an orchestrator is running here \\(process {os.getpid()}\\)"),
    ):
        used.create(validated=True)
    assert runs_of(used) == [1]


def test_create_refuses_while_somebody_launches_in_the_foreground(used: Workflow) -> None:
    lock = used.add.launcher_lock
    with held(lock, "the test", ""), pytest.raises(AlreadyRunning, match="a launcher serves 'add'"):
        used.create(validated=True)
    assert runs_of(used) == [1]


def test_create_stops_a_launcher_in_the_background(used: Workflow) -> None:
    launch(used, study="all", generator=None, detach=True)
    assert used.create(validated=True)
    assert not used.has_launcher()


# A job that goes on would take a run of the new study, which has the same number, for its own.
async def test_create_stops_the_jobs_of_the_runs_that_it_drops(used: Workflow, fifo: Path) -> None:
    launch(used, study="all", generator=None, detach=True)
    create_tasks(
        used, label=f"trap 'echo told to stop > {fifo}; exit' TERM; echo > {fifo}; sleep 1000 & wait"
    )
    await read_line(fifo)
    stop_launcher(used)
    lifecycle.disconnect(used)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert used.create(validated=True)
    assert os.read(reader, 100) == b"told to stop\n"
    os.close(reader)


@pytest.mark.parametrize("state", ["FINISHED", "CREATED"])
async def test_create_stops_jobs_whatever_the_states_of_their_runs_say(
    used: Workflow, fifo: Path, state: str
) -> None:
    """A script goes on after it has said that its run is over, or a run was reset."""
    launch(used, study="all", generator=None, detach=True)
    (run,) = create_tasks(
        used, label=f"trap 'echo told to stop > {fifo}; exit' TERM; echo > {fifo}; sleep 1000 & wait"
    )
    await read_line(fifo)
    stop_launcher(used)
    set_state(used, run, state)
    lifecycle.disconnect(used)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert used.create(validated=True)
    assert os.read(reader, 100) == b"told to stop\n"
    os.close(reader)


def test_create_goes_on_when_nobody_can_tell_which_jobs_run(
    used: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_servers(lifecycle.servers(used))
    lifecycle.disconnect(used)
    used.mult.database.server.data.write_bytes(b"this is no database")
    monkeypatch.setattr("motoko_core.launch.daemon._LOOK_TIMEOUT_S", 0.5)
    assert used.create(validated=True)
    assert runs_of(used) == []


def test_create_missing_never_drops_anything(used: Workflow) -> None:
    assert lifecycle.create_missing(used) == []
    assert runs_of(used) == [1]
    lifecycle.reset(used, [used.add])
    assert lifecycle.create_missing(used) == ["add"]
    assert runs_of(used) == [1]
    assert runs_of(used, "add") == []


def test_a_study_without_its_files_is_named_before_anything_is_dropped(used: Workflow) -> None:
    (Path(used.add.study_dir) / "launch.sh").unlink()
    with pytest.raises(MotokoError, match=r"launch\.sh"):
        used.create(validated=True)
    with pytest.raises(MotokoError, match=r"launch\.sh"):
        lifecycle.create_missing(used)
    assert runs_of(used) == [1]


def test_half_made_databases_are_made_anew(make_workflow: Maker) -> None:
    workflow = make_workflow()
    for server in (workflow.mult.database.server, workflow.vars.database.server):
        server.directory.mkdir()
        for suffix in ("", ".lock", ".index", ".tmp"):
            server.data.with_name(f"new-{server.data.name}{suffix}").write_bytes(b"half")
    assert lifecycle.create_missing(workflow) == ["mult", "add"]
    assert runs_of(workflow) == []
    workflow.vars.answer = 42
    left = [path.name for path in workflow.mult.database.server.directory.iterdir()]
    assert not [name for name in left if name.startswith("new-")]


def test_reset_removes_data_and_run_directories(used: Workflow) -> None:
    lifecycle.reset(used, [used.mult])
    assert not used.mult.database.server.directory.exists()
    assert not lifecycle.runs_directory(used.mult).exists()
    assert runs_of(used, "add") == []
    lifecycle.reset(used)
    assert not used.add.database.server.directory.exists()
    assert not lifecycle.state_directory(used).exists()
    assert (Path(used.add.study_dir) / "bd.yaml").exists()


def test_running_servers_stops_only_what_it_started(used: Workflow) -> None:
    lifecycle.disconnect(used)
    mult, add = used.mult.database.server, used.add.database.server
    stop_servers([mult])
    with lifecycle.running_servers(used):
        assert mult.is_up()
        assert runs_of(used) == [1]
    assert not mult.is_up()
    assert add.is_up()


def test_running_servers_serves_some_studies(used: Workflow) -> None:
    lifecycle.disconnect(used)
    stop_servers(lifecycle.servers(used))
    with lifecycle.running_servers(used, [used.add]):
        assert used.add.database.server.is_up()
        assert not used.mult.database.server.is_up()


def test_running_servers_names_studies_that_do_not_exist(make_workflow: Maker) -> None:
    workflow = make_workflow()
    with (
        pytest.raises(MotokoError, match="mult, add were not created yet"),
        lifecycle.running_servers(workflow),
    ):
        pass


async def test_a_server_that_was_killed_is_found_dead_and_started_again(used: Workflow) -> None:
    lifecycle.disconnect(used)
    server = used.mult.database.server
    for process in server.daemon.processes():  # the manager as well
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert start_servers([server]) == [server]
    assert runs_of(used) == [1]
