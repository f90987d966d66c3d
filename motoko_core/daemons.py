"""Background processes under zdaemon: ZEO servers, the launcher, the orchestrator.

zdaemon keeps a process alive and answers on a socket of its own. ``zdaemon -C file start`` waits in
steps of a second, so Motoko starts zdaemon's manager itself, the way ``zdaemon start`` does, and watches
for readiness. The files are the ones that BlackDynamite writes, so that ``canYouDigIt server status`` and
``server stop`` find the servers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import attrs
import psutil

from motoko_core.errors import StudyError
from motoko_core.exit_record import TAG_VARIABLE

#: A path of a Unix socket holds 108 bytes with its final zero (``sun_path``); zdaemon binds
#: ``<socket>.<pid>`` first.
_SOCKET_PATH_BYTES = 107 - len(".4194304")
_POLL_S = 0.01


def private_directory(path: Path) -> Path:
    """Create ``path`` with mode 0700 and check that nobody else can put a socket there.

    :raises StudyError: it belongs to somebody else.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise StudyError(
            f"the directory for sockets {path} is not a directory of yours (owner: uid {info.st_uid})",
            hint="Whoever reaches a study's socket can run code as you. Remove it, or set TMPDIR.",
        )
    if info.st_mode & 0o077:
        path.chmod(0o700)
    return path


def socket_path(directory: Path, name: str) -> Path:
    """Where a socket of ``directory`` lives: there, or in a short private directory if that is too long."""
    path = directory / name
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    base = private_directory(Path(tempfile.gettempdir()) / f"motoko-{os.getuid()}")
    return private_directory(base / digest) / name


def in_zconfig(text: str) -> str:
    """Write a text for ZConfig, which takes a single $ for one of its own."""
    return text.replace("$", "$$")


def is_accepting(address: str | tuple[str, int]) -> bool:
    """Whether something accepts connections at a Unix socket path or a (host, port) pair."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except BlockingIOError:
            return True  # somebody listens, and has not come to accept those before us yet
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll ``condition`` every 10 ms; answer whether it became true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that its parent has not buried yet has."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def environment() -> dict[str, str]:
    """The environment for background processes: ours, with our interpreter's programs on the PATH.

    A task can start a server. It serves others too, and must not be stopped as one of the task's processes.
    """
    env = dict(os.environ)
    env.pop(TAG_VARIABLE, None)
    bindir = str(Path(sys.executable).parent)
    path = env.get("PATH", os.defpath)
    if bindir not in path.split(os.pathsep):
        env["PATH"] = bindir + os.pathsep + path
    return env


@attrs.frozen(kw_only=True)
class Daemon:
    """One program under zdaemon.

    :param title: for messages, such as ``the server of study 'add'``.
    :param stem: the names of its files in ``directory``: ``<stem>.conf``, ``<stem>.socket``.
    :param exit_codes: exit codes after which zdaemon does not start the program again.
    """

    title: str
    directory: Path
    stem: str
    program: tuple[str, ...]
    transcript: Path | None = None
    exit_codes: tuple[int, ...] = (0, 2)
    working_directory: Path | None = None
    #: A configuration file of the program itself: finds a program whose manager was killed.
    program_config: Path | None = None

    @property
    def config(self) -> Path:
        return self.directory / f"{self.stem}.conf"

    @property
    def socket(self) -> Path:
        return socket_path(self.directory, f"{self.stem}.socket")

    def is_running(self) -> bool:
        """Whether zdaemon's manager is there. It is asked something: a caller who hangs up is logged."""
        return self._send(b"status\n")

    def start(self) -> None:
        """Start zdaemon's manager and return; the program itself needs a moment more.

        Does nothing if it runs already.
        """
        if self.is_running():
            return
        # A stale socket would make zdaemon wait for a second before it starts.
        self.socket.unlink(missing_ok=True)
        program = " ".join(self.program)
        lines = ["<runner>", f" program {program}", f" socket-name {self.socket}"]
        if self.transcript:
            lines.append(f" transcript {self.transcript}")
        if self.working_directory:
            lines.append(f" directory {self.working_directory}")
        lines += [f" exit-codes {','.join(map(str, self.exit_codes))}", "</runner>", ""]
        self.config.write_text(in_zconfig("\n".join(lines)))
        import zdaemon

        package = Path(zdaemon.__file__).parent
        # Python shows such warnings of a main module, here in the log of what zdaemon starts.
        command = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-m",
            "zdaemon.zdrun",
            "-S",
            str(package / "schema.xml"),
        ]
        command += ["-C", str(self.config), "-t", str(self.transcript or os.devnull), *self.program]
        result = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
            text=True,
        )
        if result.returncode:
            raise StudyError(f"{self.title} did not start: {result.stdout.strip() or result.returncode}")

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Stop the program and its manager; answer whether anything was running.

        :raises StudyError: it is still there after ``timeout_s`` seconds, in spite of SIGKILL.
        """
        return bool(stop_daemons([self], timeout_s))

    def _kill(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not wait_until(lambda: all(map(is_gone, processes)), 10.0):
            left = [process.pid for process in processes if not is_gone(process)]
            raise StudyError(f"{self.title} does not stop: processes {left} survived SIGKILL")

    def processes(self) -> list[psutil.Process]:
        """The manager and its program, found by the configuration file on their command line."""
        found: dict[int, psutil.Process] = {}
        configs = {os.path.realpath(path) for path in (self.config, self.program_config) if path}
        for process in psutil.process_iter(["cmdline", "uids"]):
            words: Sequence[str] = process.info["cmdline"] or ()
            uids = process.info["uids"]
            if uids is None or uids.real != os.getuid():
                continue
            given = {os.path.realpath(b) for a, b in pairwise(words) if a == "-C"}
            if not given & configs:
                continue
            found[process.pid] = process
            try:
                found.update((child.pid, child) for child in process.children())
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def request_stop(self) -> None:
        """Ask the program and its manager to end."""
        if self.is_running():
            self._send(b"stop\n")
        else:  # the manager is gone, and can pass nothing on
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()

    def _send(self, command: bytes) -> bool:
        """Tell the manager something; answer whether anybody listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket))
                client.sendall(command)
                return bool(client.recv(1000))
            except (BlockingIOError, TimeoutError):
                return True  # somebody listens, and is busy
            except OSError:
                return False


def stop_daemons(daemons: Sequence[Daemon], timeout_s: float = 10.0) -> list[Daemon]:
    """Stop daemons side by side; answer those that were running.

    :raises StudyError: a process is still there, in spite of SIGKILL after ``timeout_s`` seconds.
    """
    running = [(daemon, daemon.processes()) for daemon in daemons]
    running = [(daemon, processes) for daemon, processes in running if processes or daemon.is_running()]
    for daemon, _ in running:
        daemon.request_stop()
    end = time.monotonic() + timeout_s
    for daemon, processes in running:
        left = max(0.0, end - time.monotonic())
        if not wait_until(lambda found=processes: all(map(is_gone, found)), left):  # type: ignore[misc]
            daemon._kill(processes)
        daemon.socket.unlink(missing_ok=True)
    return [daemon for daemon, _ in running]
