"""Lock files: one orchestrator per workflow, one launcher per study."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zc.lockfile

from motoko_core.errors import AlreadyRunning

_PATIENCE_S = 0.2


def holder(path: Path) -> int | None:
    """The process id that holds a lock (0 if it is not known); None if nobody does."""
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = file.read().split()
                return int(words[0]) if words and words[0].isdecimal() else 0
    except FileNotFoundError:
        pass
    return None


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
        pid = holder(path)
        raise AlreadyRunning(f"{what} (process {pid or 'unknown'})", where=str(path), hint=hint)
    try:
        yield
    finally:
        lock.close()


def _acquire(path: Path) -> zc.lockfile.LockFile | None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            # Readers see who holds it: the first word is the process id.
            return zc.lockfile.LockFile(str(path), content_template="{pid}")
        except zc.lockfile.LockError:
            # Somebody who only looks who holds it (`holder`) has it too, for some microseconds.
            if time.monotonic() > end:
                return None
            time.sleep(0.01)
