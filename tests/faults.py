"""What goes wrong on real machines: full disks, bytes that change, permissions that are missing."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ZODB.FileStorage import FileStorage

from motoko_core.study.server import Server

#: ``PR_CAPBSET_DROP``, with ``CAP_DAC_OVERRIDE`` and ``CAP_DAC_READ_SEARCH``.
_DROP, _CAPABILITIES = 24, (1, 2)


def respect_permissions() -> None:
    """In a child process, before it executes a program: make permissions count for root as well."""
    if os.getuid() == 0:
        for capability in _CAPABILITIES:
            ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0)


def limit_files(server: Server, size: int) -> None:
    """Let the server's files grow to ``size`` bytes, or (-1) as far as they want: a disk that is full."""
    for process in server.daemon.processes():
        with suppress(psutil.NoSuchProcess):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def overwrite(path: Path, position: int, data: bytes) -> None:
    """Change some bytes in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def last_transaction(path: Path) -> int:
    """Where the last transaction of a database begins."""
    with storage(path) as opened:
        return int(list(opened.iterator())[-1]._tpos)


@contextmanager
def storage(path: Path) -> Iterator[FileStorage]:
    """A database file, read without a server."""
    opened = FileStorage(str(path), read_only=True)
    try:
        yield opened
    finally:
        opened.close()
