"""Background processes under zdaemon, sockets and their directories, and the locks beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from motoko_core import daemons
from motoko_core.daemons import (
    Daemon,
    in_zconfig,
    is_accepting,
    is_gone,
    private_directory,
    socket_path,
    stop_daemons,
    wait_until,
)
from motoko_core.errors import AlreadyRunning, StudyError
from motoko_core.exit_record import TAG_VARIABLE
from motoko_core.locks import held, holder, taking_turns, who_holds
from tests.processes import run_python

#: Says that it runs, and waits for a signal.
PROGRAM = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"
#: The same, but it does not want to end.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + PROGRAM


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    yield directory
    shutil.rmtree(directory)


def make(directory: Path, stem: str = "it", program: str = PROGRAM) -> Daemon:
    return Daemon(
        title=f"the program {stem}",
        directory=directory,
        stem=stem,
        program=(sys.executable, "-c", program, str(directory / f"{stem}.up")),
        transcript=directory / f"{stem}.out",
    )


def start(daemon: Daemon) -> None:
    daemon.start()
    assert wait_until((daemon.directory / f"{daemon.stem}.up").exists, 20)


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    daemon = make(directory)
    yield daemon
    daemon.stop()


# ------------------------------------------------------------------ daemons


def test_a_daemon_that_a_task_starts_is_none_of_its_processes(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TAG_VARIABLE, "a task's")
    start(daemon)
    assert [TAG_VARIABLE in process.environ() for process in daemon.processes()] == [False, False]


def test_daemon_starts_and_stops(daemon: Daemon) -> None:
    assert not daemon.is_running()
    start(daemon)
    assert daemon.is_running()
    processes = daemon.processes()
    assert len(processes) == 2
    assert daemon.stop() is True
    assert not daemon.is_running()
    assert not daemon.socket.exists()
    assert all(map(is_gone, processes))
    assert daemon.stop() is False


def test_transcript_holds_what_the_program_says_and_no_warnings_about_its_manager(directory: Path) -> None:
    daemon = make(directory, program="print('hello', flush=True); " + PROGRAM)
    start(daemon)
    daemon.stop()
    assert (directory / "it.out").read_text() == "hello\n"


def test_daemon_that_runs_is_not_started_again(daemon: Daemon) -> None:
    start(daemon)
    before = {process.pid for process in daemon.processes()}
    daemon.start()
    assert {process.pid for process in daemon.processes()} == before


def test_program_that_ignores_sigterm_is_killed(directory: Path) -> None:
    stubborn = make(directory, program=STUBBORN)
    start(stubborn)
    processes = stubborn.processes()
    assert stubborn.stop(timeout_s=0.1) is True
    assert all(map(is_gone, processes))


def test_daemons_are_stopped_side_by_side(directory: Path) -> None:
    several = [make(directory, stem) for stem in ("one", "two", "three")]
    for daemon in several[:2]:
        start(daemon)
    assert stop_daemons(several) == several[:2]
    assert not any(daemon.is_running() for daemon in several)


def test_manager_that_was_killed_leaves_nothing_to_stumble_over(daemon: Daemon) -> None:
    start(daemon)
    processes = daemon.processes()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    assert wait_until(lambda: not daemon.is_running(), 10)
    assert daemon.socket.exists()
    (daemon.directory / "it.up").unlink()
    start(daemon)
    assert daemon.is_running()


def test_manager_that_does_not_start_is_an_error(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "in_zconfig", lambda text: text.replace("<runner>", "<runer>"))
    with pytest.raises(StudyError, match=r"the program it did not start: .*runer"):
        daemon.start()


def test_our_programs_are_on_the_path_of_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    bindir = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert daemons.environment()["PATH"] == f"{bindir}{os.pathsep}/usr/bin"
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}{bindir}")
    assert daemons.environment()["PATH"] == f"/usr/bin{os.pathsep}{bindir}"


def test_dollar_is_doubled_for_zconfig() -> None:
    assert in_zconfig("path /a$b") == "path /a$$b"


# ------------------------------------------------------------------ sockets


def test_socket_is_in_its_directory_if_the_path_is_short(directory: Path) -> None:
    assert socket_path(directory, "it.socket") == directory / "it.socket"


def test_socket_of_a_long_path_is_in_a_short_private_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    deep = directory / ("x" * 120)
    found = socket_path(deep, "it.socket")
    assert found == socket_path(deep, "it.socket")
    assert found != socket_path(deep / "other", "it.socket")
    assert len(os.fsencode(found)) <= 107 - len(".4194304")  # zdaemon binds <socket>.<pid> first
    assert found.parent.name == hashlib.sha256(os.fsencode(deep)).hexdigest()[:16]
    for place in (found.parent, found.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_longest_path_that_is_used_can_be_bound(directory: Path) -> None:
    name = "s" * (107 - len(".4194304") - len(str(directory)) - 1)
    path = socket_path(directory, name)
    assert path.parent == directory
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.4194304")
    assert socket_path(directory, name + "s").parent != directory


def test_private_directory_of_somebody_else_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "open").mkdir(mode=0o777)
    private_directory(directory / "open")
    assert stat.S_IMODE((directory / "open").stat().st_mode) == 0o700
    (directory / "link").symlink_to(directory / "open")
    with pytest.raises(StudyError, match="is not a directory of yours"):
        private_directory(directory / "link")
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(StudyError, match=f"owner: uid {uid}") as raised:
        private_directory(directory / "open")
    assert "TMPDIR" in str(raised.value)


def test_accepting_is_told_from_left_behind(directory: Path) -> None:
    path = str(directory / "it.socket")
    assert not is_accepting(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert not is_accepting(path)
        server.listen()
        assert is_accepting(path)
    assert not is_accepting(path)
    assert not is_accepting(("name.invalid", 1))


def test_waiting_ends_with_the_condition_or_the_time() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), 20) is True
    assert wait_until(lambda: False, 0) is False


# ------------------------------------------------------------------ locks


def test_lock_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "it.lock"
    assert holder(path) is None
    with held(path, "a thing is running", "Stop it."):
        assert holder(path) == os.getpid()
        with (
            pytest.raises(AlreadyRunning, match=f"a thing is running \\(process {os.getpid()}\\)") as raised,
            held(path, "a thing is running", "Stop it."),
        ):
            raise AssertionError("two hold it")
        assert "Stop it." in str(raised.value)
        assert str(path) in str(raised.value)
    assert holder(path) is None


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    script = """
        import os, sys
        from pathlib import Path
        from motoko_core.locks import held
        with held(Path(sys.argv[1]), "it", ""):
            print("held", flush=True)
            os._exit(0)
    """
    assert run_python(script, path) == "held"
    assert path.read_text().split()[0].isdecimal()
    assert holder(path) is None
    with held(path, "it", ""):
        pass


def test_a_lock_that_another_machine_holds_is_not_taken_for_a_process_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with held(path, "it", ""):
        path.write_text(" 123 node7\n")
        assert holder(path) == 0
        assert str(who_holds(path)) == "process 123 on node7"
        with pytest.raises(AlreadyRunning, match="it \\(process 123 on node7\\)"), held(path, "it", ""):
            raise AssertionError("two hold it")
        path.write_text("")
        assert (holder(path), str(who_holds(path))) == (0, "process unknown")


def test_turns_are_taken_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with taking_turns(tmp_path / "it.lock"):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80
