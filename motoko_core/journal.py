"""Commits over several databases that survive ``kill -9``.

Each study is a database of its own. A transaction over several of them asks all to vote, and then finishes
one after the other; a process or a server that dies in between leaves a part of it. So, once every database
has voted, what is about to be written is kept in a file until the last one has finished. Whoever comes next,
the next attempt or the next orchestrator, finds the file: if some of the databases have the transaction, it
is written to the others, or, if somebody has changed the same objects meanwhile, taken back from the former.
If none has it, it did not happen. If it is still the same process, the firing is repeated only if it did not.
"""

from __future__ import annotations

import logging
import os
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ZEO.Exceptions import ClientDisconnected
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ConflictError, UndoError

from motoko_core.errors import StudyError

if TYPE_CHECKING:
    from ZODB.Connection import Connection

logger = logging.getLogger("motoko")

#: (object id, serial it replaces, new state), as the storage was given it.
Record = tuple[bytes, bytes, bytes]
_PATTERN = "commit-*.journal"


class OutcomeUnknown(ClientDisconnected):  # type: ignore[misc]
    """The connection was lost when a commit was being finished: nobody knows yet whether it has happened.

    :param ask: finds it out, when the servers answer again; raises ``ClientDisconnected`` if they do not.
    """

    def __init__(self, message: str, ask: Callable[[], bool]) -> None:
        super().__init__(message)
        self.ask = ask


def await_earlier_commits(storage: Any) -> None:
    """Return when whatever the server was told to commit before has happened, or never will.

    The last message of a lost connection may arrive after the first one of the next.
    """
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    try:
        storage.tpc_vote(txn)  # one at a time may be between this and its end
    finally:
        storage.tpc_abort(txn)


def watch_finishing(connection: Connection) -> None:
    """Have a connection remember whether it has begun to finish a transaction; once is enough."""
    storage = connection._normal_storage
    if hasattr(storage, "motoko_finishing"):
        return
    storage.motoko_finishing = False
    begin = storage.tpc_begin

    def tpc_begin(txn: Any) -> None:
        storage.motoko_finishing = False
        begin(txn)

    def tpc_finish(*arguments: Any) -> Any:
        storage.motoko_finishing = True
        return type(storage).tpc_finish(storage, *arguments)

    storage.tpc_begin, storage.tpc_finish = tpc_begin, tpc_finish


def _records(connection: Connection, txn: Any) -> Iterator[Record]:
    """What a connection is about to write."""
    if not connection._needs_to_join:
        # Connections share the client of the server; it keeps what it was given in a file.
        yield from connection._normal_storage._storage.records(txn.data(connection))


class Journal:
    """The journal files of one workflow.

    :param directory: where they are kept, ``.wf``.
    :param connect: the databases' names -> functions that make another client of their servers.
    """

    def __init__(self, directory: Path, connect: Mapping[str, Callable[[], Any]]) -> None:
        self.directory = directory
        self._connect = connect
        #: What became of the transactions that were recovered, by identity.
        self._happened: dict[str, bool] = {}

    def guard(self, txn: Any, connections: Mapping[str, Connection]) -> Guard:
        """Have a transaction written down before its first database finishes.

        :param connections: by a name under which :meth:`recover` finds the database again.
        """
        identity = uuid.uuid4().hex
        txn.note(_description(identity))
        guard = Guard(self.directory / f"commit-{identity}.journal", identity, connections)
        txn.join(guard)
        return guard

    def has_happened(self, identity: str) -> bool:
        """Whether a transaction that was cut short has happened after all; it is made whole, if need be.

        :raises: like :meth:`recover`.
        """
        self.recover()
        return self._happened.pop(identity)

    def recover(self) -> int:
        """Make whole what was left half-finished; answer the number of such transactions.

        :raises StudyError: others have changed the same objects, so that it cannot be mended.
        :raises ~ZEO.Exceptions.ClientDisconnected: a server does not answer; the files stay.
        """
        mended = 0
        for path in sorted(self.directory.glob(_PATTERN)):
            try:
                identity, parts = _read(path)
            except (EOFError, pickle.UnpicklingError):
                path.unlink()  # killed while writing it: nothing had been finished
                continue
            unknown = sorted(parts.keys() - self._connect.keys())
            if unknown:
                raise StudyError(
                    f"a transaction was cut short, and {', '.join(unknown)} is not in the workflow any more",
                    where=str(path),
                    hint="Put it back into motoko.yaml and start again; or remove this file.",
                )
            undo_ids = {name: _undo_id(self._connect[name], identity) for name in parts}
            missing = [name for name, undo_id in undo_ids.items() if undo_id is None]
            happened = not missing
            if missing and len(missing) < len(parts):
                happened = self._mend(identity, parts, undo_ids, path)
                mended += 1
            self._happened[identity] = happened
            path.unlink()
        return mended

    def _mend(
        self,
        identity: str,
        parts: Mapping[str, Sequence[Record]],
        undo_ids: Mapping[str, Any],
        path: Path,
    ) -> bool:
        """Complete a transaction, or take it back; answer whether it was completed."""
        written: dict[str, Any] = {name: undo_id for name, undo_id in undo_ids.items() if undo_id is not None}
        missing = parts.keys() - written.keys()
        if any(_is_taken_back(self._connect[name], identity) for name in missing):
            error = "taking it back was begun"
        else:
            try:
                for name in missing:
                    _write(self._connect[name], identity, parts[name])
                    logger.warning("completed a transaction that was cut short, in %s", name)
                    written[name] = _undo_id(self._connect[name], identity)
            except ConflictError as conflict:
                error = str(conflict)
            else:
                return True
        try:
            for name, undo_id in written.items():
                _take_back(self._connect[name], identity, undo_id)
                logger.warning("took back a transaction that was cut short, in %s", name)
        except (ConflictError, UndoError) as second:
            raise StudyError(
                f"a transaction was cut short, and can neither be completed ({error}) nor taken back "
                f"({second})",
                where=str(path),
                hint="Objects that it changed were changed by somebody else since. Look at the runs that "
                "were created last, mend them by hand, and remove this file.",
            ) from second
        return False


class Guard:
    """A resource manager that votes last and finishes last."""

    def __init__(self, path: Path, identity: str, connections: Mapping[str, Connection]) -> None:
        self.transaction_manager = None
        self.identity = identity
        self._path = path
        self._connections = connections

    @property
    def is_open(self) -> bool:
        """Whether the transaction was cut short, and a part of it may have happened."""
        return self._path.exists()

    def sortKey(self) -> str:
        return "~"

    def tpc_begin(self, txn: Any) -> None:
        for connection in self._connections.values():
            if connection._needs_to_join:
                connection._normal_storage.motoko_finishing = False

    def commit(self, txn: Any) -> None:
        pass

    def tpc_vote(self, txn: Any) -> None:
        parts = {name: _records(connection, txn) for name, connection in self._connections.items()}
        parts = {name: chain([first], rest) for name, rest in parts.items() if (first := next(rest, None))}
        if len(parts) < 2:
            return  # one database is atomic by itself
        with self._path.open("wb") as file:
            _write_down(file, self.identity, parts)
            file.flush()
            os.fsync(file.fileno())

    def tpc_finish(self, txn: Any) -> None:
        self._path.unlink(missing_ok=True)

    def tpc_abort(self, txn: Any) -> None:
        if not any(connection._normal_storage.motoko_finishing for connection in self._connections.values()):
            self._path.unlink(missing_ok=True)

    def abort(self, txn: Any) -> None:
        pass


def _write_down(file: IO[bytes], identity: str, parts: Mapping[str, Iterable[Record]]) -> None:
    # One by one: a transaction may be larger than the memory.
    pickle.dump((identity, list(parts)), file)
    for records in parts.values():
        for record in records:
            pickle.dump(record, file)
        pickle.dump(None, file)


def _read(path: Path) -> tuple[str, dict[str, list[Record]]]:
    with path.open("rb") as file:
        identity, names = pickle.load(file)
        return identity, {name: list(iter(lambda: pickle.load(file), None)) for name in names}


# What each of these does can be repeated by whoever comes next: the descriptions tell what was done already.


def _description(identity: str) -> str:
    return f"motoko {identity}"


def _description_of_undoing(identity: str) -> str:
    return f"motoko {identity}: taken back"


def _find(storage: Any, description: str) -> Any:
    found = storage.undoInfo(0, -1, {"description": description.encode()})
    return found[0]["id"] if found else None


def _undo_id(connect: Callable[[], Any], identity: str) -> Any:
    """What the transaction is known by in a database for taking it back; None if it is not there, or was."""
    with closing(connect()) as storage:
        await_earlier_commits(storage)
        found = _find(storage, _description(identity))
        return None if found and _find(storage, _description_of_undoing(identity)) else found


def _is_taken_back(connect: Callable[[], Any], identity: str) -> bool:
    with closing(connect()) as storage:
        return _find(storage, _description_of_undoing(identity)) is not None


@contextmanager
def _transaction(storage: Any, description: str) -> Iterator[Any]:
    txn = TransactionMetaData(description=description)
    storage.tpc_begin(txn)
    try:
        yield txn
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def _write(connect: Callable[[], Any], identity: str, records: Iterable[Record]) -> None:
    with closing(connect()) as storage, _transaction(storage, _description(identity)) as txn:
        for oid, serial, data in records:
            storage.store(oid, serial, data, "", txn)


def _take_back(connect: Callable[[], Any], identity: str, undo_id: Any) -> None:
    description = _description_of_undoing(identity)
    with closing(connect()) as storage, _transaction(storage, description) as txn:
        storage.undo(undo_id, txn)
