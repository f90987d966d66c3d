"""Lock files: one orchestrator per workflow, one launcher per study."""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import zc.lockfile

from motoko_core.errors import AlreadyRunning

_PATIENCE_S = 0.2


@attrs.frozen
class Holder:
    """Who holds a lock.

    :param pid: the process id; None if it is not known.
    :param host: the machine that the process is on; None if it is not known.
    """

    pid: int | None
    host: str | None

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, as far as is known; the system passes locks on over NFS."""
        return self.host in (None, socket.gethostname())

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'}" + ("" if self.is_here else f" on {self.host}")


def who_holds(path: Path) -> Holder | None:
    """Who holds a lock; None if nobody does."""
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, host, *_ = [*file.read().split(), "", ""]
                return Holder(int(pid) if pid.isdecimal() else None, host or None)
    except FileNotFoundError:
        pass
    return None


def holder(path: Path) -> int | None:
    """The process id that holds a lock; 0: not known, or not of this machine; None: nobody holds it."""
    found = who_holds(path)
    if found is None:
        return None
    return (found.pid or 0) if found.is_here else 0


@contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """Let one process at a time do what is inside; wait for as long as another one is there."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system frees it when the file is closed, or the process dies
        yield


@contextmanager
def held(path: Path, what: str, hint: str) -> Iterator[None]:
    """Hold a lock file for as long as the context lasts; the system frees it when the process dies.

    :param what: what is locked, for the message.
    :raises AlreadyRunning: somebody holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(path)
    if lock is None:
        found = who_holds(path) or Holder(None, None)
        raise AlreadyRunning(f"{what} ({found})", where=str(path), hint=hint)
    try:
        yield
    finally:
        lock.close()


def _acquire(path: Path) -> zc.lockfile.LockFile | None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            # Readers see who holds it.
            return zc.lockfile.LockFile(str(path), content_template="{pid} {hostname}")
        except zc.lockfile.LockError:
            # Somebody who only looks who holds it (`holder`) has it too, for some microseconds.
            if time.monotonic() > end:
                return None
            time.sleep(0.01)
