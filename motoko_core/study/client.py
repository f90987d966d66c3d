"""Connections to a database server, whose errors say what is wrong with the database.

ZEO and ZODB report what they meet: a pickle that does not load, an exception of the server as text. Here
these become :class:`~motoko_core.errors.DatabaseFault`, with what to do next.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ZODB
from BTrees.Interfaces import IBTree
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB.broken import Broken
from ZODB.POSException import ConflictError, POSKeyError
from ZODB.utils import u64

from motoko_core.errors import DatabaseFault, MotokoError
from motoko_core.session import current_session
from motoko_core.study.bulk_client import BulkClient
from motoko_core.study.connection import SpillingConnection
from motoko_core.study.datafile import BACKUP_HINT, damaged
from motoko_core.study.health import is_silent
from motoko_core.study.local_file import LocalFile

if TYPE_CHECKING:
    from motoko_core.study.pulse import Pulse
    from motoko_core.study.server import Server

logger = logging.getLogger("motoko")
# Every exception that comes from the server: it is raised here as well.
logging.getLogger("ZEO.asyncio.client").addHandler(logging.NullHandler())

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MissingObject(DatabaseFault, POSKeyError):  # type: ignore[misc]
    """Something in the database leads to an object that is not there."""


def disk_full(title: str, where: object, error: object) -> DatabaseFault:
    """The error that says that what was to be committed did not fit."""
    return DatabaseFault(
        f"the disk is full: the transaction could not be written to the database of {title} ({error})",
        where=str(where),
        hint="It was taken back; what was committed before is intact. Free space there (`motoko servers` "
        "shows sizes), then start again: nothing is done twice.",
    )


def errno_of(error: BaseException) -> int | None:
    """The error number of an OSError, also of one that the server has passed on."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, ServerException) and error.args[0] == "builtins.OSError":
        arguments = error.args[1]
        return arguments[0] if isinstance(arguments, tuple) and arguments else None
    return None


class StudyClient(BulkClient):
    """The client of a server.

    :param pulse: is told whether the server answers, and knows whether to wait for it.
    """

    def __init__(self, server: Server, pulse: Pulse | None = None, **options: Any) -> None:
        self._motoko_server = server
        self._pulse = pulse
        #: The database's file, if it can be read here.
        self.file: LocalFile | None = None
        super().__init__(server.address, **options)

    @property
    def is_patient(self) -> bool:
        return self._pulse is None or not self._pulse.is_awaited

    def is_silent(self) -> bool:
        return is_silent(self._motoko_server)

    def on_silence(self) -> None:
        if self._pulse is not None:
            self._pulse.lost()

    def on_answer(self) -> None:
        if self._pulse is not None:
            self._pulse.heard()

    @property
    def keeps_copies(self) -> bool:
        file = self.file
        return file is None or file.is_useless

    def notify_connected(self, conn: Any, info: Any) -> None:
        self.file = None
        super().notify_connected(conn, info)

    def notify_disconnected(self) -> None:
        if self._pulse is not None:
            self._pulse.doubt()
        self.file = None  # who reads is to notice that nobody answers; and what comes back may be another one
        super().notify_disconnected()

    def prefetch(self, oids: Iterable[bytes], tid: bytes) -> None:
        file = self.file  # another thread may take it away
        if file is not None and file.covers(tid):
            return  # nothing is gained by reading it twice
        # Nobody asks what became of it: whoever needs an object reads it, and is told then what is wrong.
        self._server.prefetch(oids, tid).add_done_callback(lambda future: future.exception())

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        file = self.file
        if file is not None and (found := file.load_before(oid, tid)):
            return found
        try:
            return super().loadBefore(oid, tid)
        except ServerException as error:
            server = self._motoko_server
            raise damaged(server.title, server.data, f"object {u64(oid):#x}: {_text(error)}") from error

    def store(self, *arguments: Any) -> None:
        try:
            super().store(*arguments)
        except OSError as error:  # it is kept in a temporary file
            raise self._refused(error) from error

    def tpc_vote(self, txn: Any) -> Any:
        try:
            return super().tpc_vote(txn)
        except (OSError, ServerException) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> DatabaseFault:
        server = self._motoko_server
        number = errno_of(error)
        if number in _FULL:
            return disk_full(server.title, server.data, os.strerror(number))
        return DatabaseFault(
            f"the server of {server.title} cannot write the transaction: {_text(error)}",
            where=str(server.data),
            hint=f"It was taken back. The server's log is {server.directory / 'zeo.log'}.",
        )


def _text(error: Exception) -> str:
    if isinstance(error, ServerException):
        name, arguments = error.args
        return f"{name.rpartition('.')[2]} {arguments}"
    return str(error)


class StudyConnection(SpillingConnection):
    """Reads objects; says which of them cannot be read."""

    #: Classes that the object which is being read needs, and that cannot be imported.
    _lacking: list[str]

    def setstate(self, obj: Any) -> None:
        self._lacking = []
        try:
            super().setstate(obj)
        except ClientDisconnected as error:
            # If user code takes it for something else and goes on, it does so without what it wanted to read.
            current_session().note_conflict(error)
            raise
        except (ConflictError, MotokoError):
            raise
        except POSKeyError as error:
            raise MissingObject(
                f"the database of {self.db().title} lacks an object that others refer to: "
                f"object {u64(obj._p_oid):#x} ({type(obj).__name__})",
                where=str(self.db().place),
                hint=f"It was lost when the database was mended, or its end cut off. {BACKUP_HINT}",
            ) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            what = f"object {u64(obj._p_oid):#x} ({type(obj).__name__}) cannot be read: {reason}"
            raise damaged(self.db().title, self.db().place, what) from error
        if self._lacking:
            self._warn(obj)

    def lacks(self, name: str) -> None:
        """Note a class that cannot be imported."""
        if hasattr(self, "_lacking"):
            self._lacking.append(name)

    def _warn(self, obj: Any) -> None:
        for name in set(self._lacking) - self.db().warned:
            self.db().warned.add(name)
            logger.warning(
                "%s: %s holds an object of the class %s, which cannot be imported here. It is kept as it is; "
                "nothing else is affected",
                self.db().title,
                _described(obj),
                name,
            )


def _described(obj: Any) -> str:
    """A persistent object in the user's words."""
    values = obj if IBTree.providedBy(obj) else getattr(obj, "__dict__", {})
    held = [str(name) for name, value in values.items() if isinstance(value, Broken)]
    entries = values.get("entries", values) if hasattr(values, "get") else {}
    kind = "run" if "run_name" in entries or "job_id" in entries else "job"
    owner = f"{kind} {entries['id']}" if "id" in entries else f"{type(obj).__name__} {u64(obj._p_oid):#x}"
    return f"{', '.join(map(repr, held))} of {owner}" if held else owner


class StudyDB(ZODB.DB):  # type: ignore[misc]
    """A database of which the messages know the name.

    :param title: such as ``study 'add'``.
    :param place: its file.
    """

    klass = StudyConnection

    def __init__(self, storage: Any, *, title: str, place: Any, **options: Any) -> None:
        self.title = title
        self.place = place
        #: Classes that were complained of: once is enough.
        self.warned: set[str] = set()
        super().__init__(storage, **options)

    def classFactory(self, connection: Any, modulename: str, globalname: str) -> Any:
        found = super().classFactory(connection, modulename, globalname)
        if isinstance(found, type) and issubclass(found, Broken):
            connection.lacks(f"{modulename}.{globalname}")
        return found
