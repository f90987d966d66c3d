"""The spawner: a small process that starts a launcher's jobs, waits for them, and records how they end.

It is a process of its own for two reasons. It outlives the launcher, so that the exit code of a job is known
whatever becomes of the launcher; and it starts the next job at once while the launcher waits for a database.
Without a launcher (its socket is closed) it starts nothing more, and ends with its last job.

It is executed as a file, with nothing but the standard library. Both ways a message is one line of JSON:

=====================================================================  ===================================
to the spawner                                                         meaning
=====================================================================  ===================================
``["run", tag, processors, directory, script, stdout, stderr, record]``  start it when there is room
``["drop", [tag, ...]]``                                               forget those that have not started
=====================================================================  ===================================

and back: ``["started", tag, pid]``, ``["ended", tag, code]`` (negative: the signal), ``["failed", tag,
why]``, ``["dropped", [tag, ...]]``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

#: What Python or a shell's ``nohup`` ignores would be ignored by the job too, without remedy in a script.
DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)
_READ_BYTES = 1 << 16
#: How long messages are gathered while jobs wait for their turn.
_GATHER_S = 0.02
#: The system has enough of something; it may have less of it when a job has ended.
_LATER = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


class Spawner:
    """Starts jobs in the order in which they come, side by side as far as there are slots.

    None overtakes another, so that one that asks for many processors gets its turn; one that asks for more
    than ``slots`` runs alone.

    :param launcher: the socket to the launcher.
    :param tag_variable: the environment variable that holds a job's tag.
    :param machine: what this machine is called in records.
    """

    def __init__(self, launcher: socket.socket, slots: int, tag_variable: str, machine: str) -> None:
        self._launcher: socket.socket | None = launcher
        self._slots = slots
        self._tag_variable = os.fsencode(tag_variable)
        self._first_line = os.fsencode(f"started {machine}/{_start()}:{os.getpid()}\n")
        self._environment = dict(os.environb)
        # Once: for each job, the whole PATH would be gone through, with the spawner standing still meanwhile.
        self._bash = shutil.which("bash") or "bash"
        self._waiting: deque[tuple[str, int, str, str, str | None, str | None, str]] = deque()
        #: pid -> tag, processors, descriptor of the record
        self._running: dict[int, tuple[str, int, int]] = {}
        self._used = 0
        self._incoming = b""
        self._outgoing = bytearray()
        #: When it is to be sent at the latest; and whether the launcher has to take some of it first.
        self._send_at = 0.0
        self._is_blocked = False
        self._selector = selectors.DefaultSelector()
        launcher.setblocking(False)
        self._selector.register(launcher, selectors.EVENT_READ)
        self._children, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._children, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Work until the launcher has gone and the last job has ended."""
        while self._launcher or self._running:
            for key, _ in self._selector.select(self._until_sending_s()):
                if key.fd == self._children:
                    os.read(self._children, _READ_BYTES)
            # Whatever has woken us: what the launcher has said by now comes before the next start.
            self._receive()
            # A round: as many ends and starts as there are, then one message.
            self._reap()
            while self._waiting and self._fits(self._waiting[0][1]) and self._start(*self._waiting[0]):
                self._waiting.popleft()
            self._send()
            if not self._waiting:
                os.chdir("/")  # it is in nobody's way

    def _until_sending_s(self) -> float | None:
        """How long what there is to tell may still wait; None: there is nothing, or it cannot be sent yet."""
        if not self._outgoing or self._is_blocked:
            return None
        return max(0.0, self._send_at - time.monotonic())

    def _fits(self, processors: int) -> bool:
        return not self._running or self._used + processors <= self._slots

    # ------------------------------------------------------------------ jobs

    def _start(
        self,
        tag: str,
        processors: int,
        directory: str,
        script: str,
        stdout: str | None,
        stderr: str | None,
        record: str,
    ) -> bool:
        """Start a job, or tell why it cannot be; False: it has to wait until another one has ended."""
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        for number, path in ((1, stdout), (2, stderr)):
            if path is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                actions.append((os.POSIX_SPAWN_OPEN, number, path, flags, 0o666))
        descriptor = None
        try:
            descriptor = _begin(record, self._first_line)
            os.chdir(directory)
            self._environment[self._tag_variable] = os.fsencode(tag)
            pid = os.posix_spawnp(
                self._bash,
                ["bash", f"./{script}"],
                self._environment,
                file_actions=actions,
                setsid=True,
                setsigdef=DEFAULT_SIGNALS,
                setsigmask=(),
            )
        except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
            if self._running and isinstance(error, OSError) and error.errno in _LATER:
                if descriptor is not None:
                    os.unlink(record)  # noqa: PTH108 - no pathlib here
                    os.close(descriptor)
                return False
            if descriptor is not None:
                _finish(descriptor, 126)
            why = str(error)
            if isinstance(error, OSError) and error.filename == self._bash:
                # It names the program only, but the files are opened there as well.
                why = f"{error.strerror}: bash ./{script} > {stdout} 2> {stderr}, in {directory}"
            self._tell("failed", tag, why[:1000])
        else:
            self._running[pid] = (tag, processors, descriptor)
            self._used += processors
            self._tell("started", tag, pid)
        return True

    def _reap(self) -> None:
        while self._running:
            # The record comes first: while the process is there, if only as a zombie, its end may yet come.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            job = self._running.pop(found.si_pid, None)
            if job is not None:
                tag, processors, descriptor = job
                self._used -= processors
                _finish(descriptor, code)
                self._tell("ended", tag, code)
            os.waitpid(found.si_pid, 0)

    # ------------------------------------------------------------------ messages

    def _tell(self, *words: Any) -> None:
        if self._launcher is None:
            return
        if not self._outgoing:
            self._send_at = time.monotonic() + _GATHER_S
        self._outgoing += json.dumps(words).encode() + b"\n"

    def _receive(self) -> None:
        if self._launcher is None:
            return
        try:
            data = self._launcher.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget_launcher()
            return
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        for line in lines:
            kind, *rest = json.loads(line)
            if kind == "run":
                self._waiting.append((rest[0], min(max(1, rest[1]), self._slots), *rest[2:]))
            else:
                wanted = set(rest[0])
                dropped = [job[0] for job in self._waiting if job[0] in wanted]
                self._waiting = deque(job for job in self._waiting if job[0] not in wanted)
                self._tell("dropped", dropped)
                self._send_at = 0.0

    def _send(self) -> None:
        """Send what the launcher takes; one that is paused must not hold up the jobs."""
        if self._launcher is None or not self._outgoing:
            return
        # While others wait for their turn, the launcher has nothing to do about one that has ended.
        if self._waiting and time.monotonic() < self._send_at:
            return
        try:
            sent = self._launcher.send(self._outgoing)
            del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._forget_launcher()
            return
        if self._is_blocked != bool(self._outgoing):
            self._is_blocked = bool(self._outgoing)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._is_blocked else 0)
            self._selector.modify(self._launcher, events)

    def _forget_launcher(self) -> None:
        if self._launcher is not None:
            self._selector.unregister(self._launcher)
            self._launcher.close()
        self._launcher = None
        self._waiting.clear()
        self._outgoing.clear()


def _start() -> str:
    """When this process was started, in ticks since the kernel was."""
    with suppress(OSError), open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - no pathlib here
        return file.read().rpartition(b")")[2].split()[19].decode()
    return ""


def _begin(record: str, line: bytes) -> int:
    """Make the record of a job; whoever makes it may execute the run, nobody else."""
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
    _lock(descriptor)
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), record)
    except OSError:  # an empty one would be that of a job, of which nobody ever hears how it ended
        os.unlink(record)  # noqa: PTH108 - no pathlib here
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    """Have whoever sees the file, and not our processes (from another container), see that we are at work."""
    for _ in range(100):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody is just looking
            time.sleep(0.0001)
        except OSError:  # some file systems have no locks
            return
        else:
            return


def _finish(record: int, code: int) -> None:
    with suppress(OSError):  # a full disk; the launcher hears it all the same
        os.write(record, b"ended %d\n" % code)
    with suppress(OSError):
        os.close(record)


if __name__ == "__main__":
    # Whatever ends the launcher's whole group or session on a terminal is not meant for the jobs' ends.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)  # jobs would keep it open when the spawner has died
    # A launcher that was at work before an upgrade gives three arguments.
    machine = sys.argv[4] if len(sys.argv) > 4 else socket.gethostname()
    Spawner(connection, int(sys.argv[2]), sys.argv[3], machine).serve()
