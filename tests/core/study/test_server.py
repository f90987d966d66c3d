"""Starting and stopping ZEO servers: side by side, after crashes, in odd places."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from motoko_core import lifecycle
from motoko_core.daemons import is_gone, wait_until
from motoko_core.errors import ConfigError, DatabaseFault, StudyError
from motoko_core.study.probe import UP, state_of
from motoko_core.study.server import Server, configured_address, parse_host
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, states, stop_everything, write_workflow
from tests.ports import tcp_port
from tests.processes import ROOT, run_python

__all__ = ["tcp_port"]

ONE_STUDY = "task_managers: {{mult: {host}}}\norchestrator: orchestrator.main\n"


def runzeos(server: Server) -> list[psutil.Process]:
    found = server.daemon.processes()
    return [p for p in found if any(Path(word).name == "runzeo" for word in p.cmdline()[:2])]


def test_server_starts_once_and_stops(server: Server) -> None:
    assert not server.is_up()
    assert start_servers([server]) == [server]
    assert server.is_up()
    assert start_servers([server]) == []
    processes = server.daemon.processes()
    assert len(runzeos(server)) == 1
    assert stop_servers([server]) == [server]
    assert not server.is_up()
    assert all(map(is_gone, processes))
    assert stop_servers([server]) == []


def test_starts_side_by_side_make_one_server(server: Server) -> None:
    script = """
import sys
from pathlib import Path
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers
server = Server(title="it", directory=Path(sys.argv[1]), data_name="bd.zeo")
print("ready", flush=True)
sys.stdin.readline()
print(len(start_servers([server])), server.is_up())
"""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(server.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    answers = []
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    for other in others:
        answers.append(other.communicate(timeout=60)[0])
    assert sorted(answers) == ["0 True\n", "0 True\n", "0 True\n", "1 True\n"]
    assert len(runzeos(server)) == 1


def test_socket_that_a_dead_server_left_behind_is_replaced(server: Server) -> None:
    start_servers([server])
    for process in server.daemon.processes():
        process.kill()
    assert wait_until(lambda: not server.is_up(), 10)
    assert isinstance(server.address, str)
    assert Path(server.address).exists()
    assert server.daemon.socket.exists()
    assert start_servers([server]) == [server]
    assert server.is_up()


def test_server_that_is_being_taken_apart_is_replaced(server: Server) -> None:
    """A killed process accepts connections until the system has closed its files."""
    dying = socket.socket(socket.AF_UNIX)
    dying.bind(server.address)
    dying.listen()

    def die() -> None:
        asking, _ = dying.accept()
        dying.close()
        asking.close()

    thread = threading.Thread(target=die)
    thread.start()
    assert start_servers([server]) == [server]
    thread.join()
    assert state_of(server.address) == UP


def test_paused_server_is_neither_up_nor_started_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.study.starting._PATIENCE_S", 0.1)
    start_servers([server])
    (runzeo,) = runzeos(server)
    runzeo.suspend()
    try:
        with pytest.raises(
            StudyError, match=r"server of study 'it' accepts .*, but does not answer"
        ) as raised:
            start_servers([server])
        assert "kill -CONT" in str(raised.value)
        assert runzeos(server) == [runzeo]
    finally:
        runzeo.resume()
    assert start_servers([server]) == []


def test_server_that_has_lost_its_socket_is_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are connected go on working with it."""
    monkeypatch.setattr("motoko_core.study.datafile._LOCK_PATIENCE_S", 0.1)
    start_servers([server])
    processes = server.daemon.processes()
    Path(str(server.address)).unlink()
    with pytest.raises(DatabaseFault, match="the database of study 'it' is in use"):
        start_servers([server])
    assert not any(map(is_gone, processes))


def test_stop_kills_a_server_whose_manager_was_killed(server: Server) -> None:
    start_servers([server])
    (runzeo,) = runzeos(server)
    manager = runzeo.parent()
    assert manager is not None
    manager.kill()
    assert wait_until(lambda: is_gone(manager), 10)
    assert server.is_up()
    assert stop_servers([server]) == [server]
    assert is_gone(runzeo)
    assert not server.is_up()


def test_server_that_cannot_start_is_an_error_with_the_end_of_its_log(server: Server) -> None:
    (server.directory / "zeo.blob").write_text("in the way")
    with pytest.raises(StudyError) as raised:
        start_servers([server])
    text = str(raised.value)
    assert "the server of study 'it' did not start" in text
    assert "zeo.log" in text
    assert "NotADirectoryError" in text
    assert server.daemon.processes() == []


def test_no_database_is_an_error_with_a_hint(server: Server) -> None:
    server.data.unlink()
    with pytest.raises(StudyError, match=r"study 'it' has no database yet: .*bd\.zeo is missing") as raised:
        start_servers([server])
    assert "motoko create" in str(raised.value)


def test_directory_is_private(server: Server) -> None:
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("place", ["deep", "spaced out", "dollar$"])
def test_study_in_an_odd_place_works(place: str) -> None:
    top = Path(tempfile.mkdtemp(prefix="mtk-"))
    directory = top / place / ("x" * 60) / ("y" * 60) if place == "deep" else top / place
    workflow = Workflow(write_workflow(directory, studies=("mult",), yaml=ONE_STUDY.format(host="")))
    try:
        lifecycle.create_missing(workflow)
        workflow.run_name = "w"
        assert create_tasks(workflow, x=1) == ["mult.1"]
        server = workflow.mult.database.server
        assert isinstance(server.address, str)
        socket_path = Path(server.address)
        assert stat.S_ISSOCK(socket_path.stat().st_mode)
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        if place == "deep":
            assert len(str(server.directory / "zeo.socket")) > 107
            assert stat.S_IMODE(socket_path.parents[1].stat().st_mode) == 0o700
            script = """
                import sys, BlackDynamite as BD
                run = BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[1]
                run.start()
            """
            run_python(script, workflow.mult.study_dir, cwd=workflow.mult.study_dir)
            assert states(workflow) == {1: "START"}
    finally:
        stop_everything(workflow)
        if place == "deep":
            shutil.rmtree(socket_path.parent)
        shutil.rmtree(top)


def test_study_is_served_over_tcp(make_workflow: Callable[..., Workflow], tcp_port: int) -> None:
    port = tcp_port
    workflow = make_workflow(
        studies=("mult",),
        yaml=ONE_STUDY.format(host="{host: 'zeo://127.0.0.1:%d'}" % port),  # noqa: UP031
    )
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    create_tasks(workflow, x=1)
    assert workflow.mult.database.server.address == ("127.0.0.1", port)
    assert workflow.mult.host == f"zeo://127.0.0.1:{port}"
    script = """
        import sys, BlackDynamite as BD
        BD.Base(host=sys.argv[1], study="mult").runs[1].start()
    """
    run_python(script, workflow.mult.host, cwd=workflow.mult.study_dir)
    assert states(workflow) == {1: "START"}


def test_server_elsewhere_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motoko_core.study.starting._PATIENCE_S", 0.1)
    # No machine has this address: that nobody is there may be heard of at once, or never.
    server = Server(title="study 'it'", directory=Path("/nowhere"), data_name="x", tcp=("192.0.2.1", 1))
    assert not server.is_local
    with pytest.raises(StudyError, match=r"is served at \('192.0.2.1', 1\), which does not answer"):
        start_servers([server])


def test_silent_server_elsewhere_is_not_called_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motoko_core.study.starting._PATIENCE_S", 0.1)
    monkeypatch.setattr(Server, "is_local", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Server(
            title="study 'it'", directory=Path("/nowhere"), data_name="x", tcp=silent.getsockname()
        )
        with pytest.raises(StudyError, match="which does not answer") as raised:
            start_servers([server])
    assert "Start the server there" in str(raised.value)


def test_host_that_is_not_known_is_not_taken_for_a_paused_server() -> None:
    server = Server(title="study 'it'", directory=Path("/nowhere"), data_name="x", tcp=("nowhere.invalid", 1))
    with pytest.raises(StudyError, match="which does not answer") as raised:
        start_servers([server])
    assert "Start the server there" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("zeo:///a/b", Path("/a/b")),
        ("zeo://node7:8100", ("node7", 8100)),
    ],
)
def test_host_is_read(text: str, address: object) -> None:
    assert parse_host(text) == address


@pytest.mark.parametrize("text", ["/a/b", "zeo://", "zeo://node7", "zeo://a/b", "http://node7:80"])
def test_host_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the host") as raised:
        parse_host(text)
    assert "zeo://<host>:<port>" in str(raised.value)


def test_copied_workflow_leaves_the_server_of_the_original_alone(workflow: Workflow, tmp_path: Path) -> None:
    create_tasks(workflow, x=1.0)
    start_servers([workflow.mult.database.server])
    copied = tmp_path / "copied"
    shutil.copytree(
        workflow.directory,
        copied,
        ignore=lambda directory, names: [n for n in names if n.endswith(".socket")],
    )
    copy = Workflow(copied / "motoko.yaml")
    copy.run_name = workflow.run_name
    try:
        assert not copy.mult.database.server.is_up()
        create_tasks(copy, x=2.0)
        assert len(copy.mult.select()) == 2
        assert workflow.mult.database.server.is_up()
        assert len(workflow.mult.select()) == 1
        assert copy.mult.database.server.address != workflow.mult.database.server.address
    finally:
        stop_everything(copy)
    assert workflow.mult.database.server.is_up()


def test_address_is_what_the_configuration_says(tmp_path: Path) -> None:
    config = tmp_path / "zeo.conf"
    assert configured_address(config) is None
    config.write_text("<zeo>\n  address /run/x/zeo.socket\n</zeo>\n")
    assert configured_address(config) == "/run/x/zeo.socket"
    config.write_text("<zeo>\n  address node7:8100\n</zeo>\n")
    assert configured_address(config) == ("node7", 8100)
    config.write_text("<zeo>\n</zeo>\n")
    assert configured_address(config) is None


def test_server_that_blackdynamite_has_started_is_used(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow(studies=("mult",), yaml=ONE_STUDY.format(host=""))
    lifecycle.create_missing(workflow)
    study = workflow.mult.study_dir
    script = """
        import sys, BlackDynamite as BD
        print(list(BD.Base(host="zeo://" + sys.argv[1], study="mult", start_daemon=True).runs.entries))
    """
    assert run_python(script, study, cwd=study).splitlines()[-1] == "[]"
    server = workflow.mult.database.server
    assert server.is_up()
    assert start_servers([server]) == []
    assert stop_servers([server]) == [server]
    assert server.daemon.processes() == []
