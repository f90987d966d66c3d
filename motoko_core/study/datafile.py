"""What can be said about a database file before a server opens it, and how to mend it."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
from ZODB.FileStorage import FileStorage, packed_version
from ZODB.FileStorage.FileStorage import read_index
from ZODB.FileStorage.format import TRANS_HDR_LEN, CorruptedError
from ZODB.fsIndex import fsIndex
from ZODB.POSException import StorageError
from ZODB.utils import u64

from motoko_core.daemons import wait_until
from motoko_core.errors import DatabaseFault
from motoko_core.locks import holder

# What it has to say about a file is said by the errors here.
logging.getLogger("ZODB").addHandler(logging.NullHandler())

#: A server that was just told to stop needs a moment to write its index.
_LOCK_PATIENCE_S = 5.0


@attrs.frozen
class Cut:
    """The torn end of a database, which the server cuts off.

    :param size: bytes.
    :param kept: where the server keeps it; None: it is too short to hold anything.
    """

    size: int
    kept: Path | None

    def __str__(self) -> str:
        where = f"they are kept in {self.kept}" if self.kept else "nothing can have been in them"
        return f"its last {self.size} bytes, a transaction that was never complete, were cut off; {where}"


#: What loses less than mending, and helps where that does not.
BACKUP_HINT = (
    "A copy from a backup loses less (what `motoko pack` left in *.old is one), and is the only help if the "
    "same object is reported again. Put it in the place of the database, and remove the .index beside it."
)


def mend_hint(data: Path) -> str:
    """The commands that make a database of what can be read of a damaged one."""
    python, directory, name = (shlex.quote(text) for text in (sys.executable, str(data.parent), data.name))
    return (
        "Stop the servers (`motoko kill`). Then this makes a database of what can be read, and keeps the "
        "damaged one:\n"
        f"  cd {directory} && {python} -m ZODB.fsrecover {name} recovered && mv {name} damaged.{name} && "
        f"mv recovered {name} && rm -f {name}.index recovered.*\n"
        f"  {BACKUP_HINT}"
    )


def require_writable(title: str, path: Path) -> None:
    """:raises DatabaseFault: nothing can be written to a file or a directory."""
    while not path.exists() and path != path.parent:
        path = path.parent
    if not os.access(path, os.W_OK):
        reason = "read-only" if os.statvfs(path).f_flag & os.ST_RDONLY else "not writable for you"
        raise DatabaseFault(
            f"{path} is {reason}, and the database of {title} has to be written",
            hint="`motoko info` reads it all the same. To go on working: mend the permissions, or copy the "
            "workflow's directory to a place where you can write.",
        )


def require_database(title: str, data: Path) -> None:
    """:raises DatabaseFault: a file is empty, or is something else than a database."""
    if not data.is_file():
        raise _none(title, data, "is no file")
    with data.open("rb") as file:
        start = file.read(len(packed_version))
    if start != packed_version:
        raise _none(title, data, f"begins with {start!r}" if start else "is empty (0 bytes)")


def _none(title: str, data: Path, what: str) -> DatabaseFault:
    return DatabaseFault(
        f"there is no database of {title}: {data} {what}",
        hint="Put a copy from a backup in its place, or remove it: then `motoko create` and `motoko run` "
        "make an empty one.",
    )


def require_unlocked(title: str, data: Path) -> None:
    """:raises DatabaseFault: another process has the database open, and it is not a server that answers."""
    lock = data.with_name(data.name + ".lock")
    if wait_until(lambda: holder(lock) is None, _LOCK_PATIENCE_S):
        return
    pid = holder(lock)
    if pid is None:
        return
    raise DatabaseFault(
        f"the database of {title} is in use: {data} is locked by {_described(pid)}",
        hint="Stop that process, or wait until it ends; `motoko kill --aggressive` ends servers that nothing "
        "else reaches.",
    )


def _described(pid: int) -> str:
    try:
        words = " ".join(psutil.Process(pid).cmdline()).split()
        return f"process {pid} ({' '.join(words)[:100]})"
    except (psutil.Error, ValueError):
        return f"process {pid or '(unknown)'}, perhaps on another machine"


class _ReadOnly(FileStorage):  # type: ignore[misc]
    """A FileStorage that closes its file when it cannot be opened."""

    def __init__(self, path: str) -> None:
        try:
            super().__init__(path, read_only=True)
        except BaseException:
            self._file.close()
            raise


def open_read_only(title: str, data: Path) -> Any:
    """Open a database to read it as it was last committed; this takes no lock.

    :raises DatabaseFault: it is damaged.
    """
    require_database(title, data)
    with _noticing_damage(title, data):
        return _ReadOnly(str(data))


def examine(title: str, data: Path, *, thorough: bool = False) -> Cut | None:
    """Read a database as the server will do when it opens it; answer what the server will cut off.

    One that was closed in good order is not read: the server does not look at more than its end either.

    :param thorough: read all of it, whatever the index says.
    :raises DatabaseFault: it is damaged.
    """
    size = data.stat().st_size
    if thorough:
        with data.open("rb") as file, _noticing_damage(title, data):
            end, _, _ = read_index(file, str(data), fsIndex(), {}, read_only=1)
    elif _closed_at(data) == size:
        return None
    else:
        storage = open_read_only(title, data)
        end = storage.getSize()
        storage.close()
    if end >= size:
        return None
    if end == len(packed_version):
        raise _none(title, data, "ends within its first transaction")
    if end < _last_transaction(data, size):
        # ZODB cuts off all that it cannot read, whatever follows.
        raise damaged(
            title, data, f"the bytes from {end} on are no transaction, but transactions follow them"
        )
    return Cut(size - end, _next_kept(data) if size - end >= TRANS_HDR_LEN else None)


@contextmanager
def _noticing_damage(title: str, data: Path) -> Iterator[None]:
    try:
        yield
    except (StorageError, CorruptedError, ValueError, struct.error) as error:
        raise damaged(title, data, str(error)) from error


def damaged(title: str, data: Path, reason: str) -> DatabaseFault:
    """The error that says that a database is damaged, and how to mend it."""
    return DatabaseFault(
        f"the database of {title} is damaged: {reason}", where=str(data), hint=mend_hint(data)
    )


def _last_transaction(data: Path, size: int) -> int:
    """Where the last transaction begins, if the end of the file is that of a whole one; else 0."""
    with data.open("rb") as file:
        file.seek(size - 8)
        length = u64(file.read(8))
        begin = size - 8 - length
        if length < TRANS_HDR_LEN or begin < len(packed_version):
            return 0
        file.seek(begin + 8)  # behind the transaction's id
        return begin if u64(file.read(8)) == length else 0


def _closed_at(data: Path) -> int | None:
    """How long the file was when its index was saved."""
    try:
        with data.with_name(data.name + ".index").open("rb") as file:
            position = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return position if isinstance(position, int) else None


def _next_kept(data: Path) -> Path:
    number = 0
    while (path := data.with_name(f"{data.name}.tr{number}")).exists():
        number += 1
    return path
