"""The client of a ZEO server: commits in few messages, and commits whose answer is lost.

ZEO hands every stored object to its network thread by itself, and for the small objects of a task that costs
more than all the rest. Here they are handed over by the hundred, and after every few thousand the server is
asked for a sign of life: what it has not taken yet does not pile up in memory.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZEO.TransactionBuffer import TransactionBuffer
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSKeyError
from ZODB.utils import z64

from motoko_core.journal import OutcomeUnknown, await_earlier_commits
from motoko_core.study.patience import PatientThread

logger = logging.getLogger("motoko")

#: Objects that are handed over at once; and such portions between two signs of life.
_PORTION = 200
_PORTIONS_AHEAD = 20
#: Hundreds of object ids that are asked for before they are needed.
_ORDERS = 5
#: If a transaction's new objects are more than so many bytes, the client's cache does not get them.
_CACHED_BYTES = 20 * 2**20
#: How many later transactions on an object are looked through for the one whose answer was lost.
_HISTORY = 1000
#: How long a script waits for a server to ask it what became of a commit, and how long between two attempts.
_LOOK_UP_S = 600.0
_RETRY_S = 0.2
_MARK = "motoko"


class PassingTransaction(TransactionMetaData):  # type: ignore[misc]
    """One of which the client keeps nothing: neither a journal nor its cache will ask for it."""


class _Buffer(TransactionBuffer):  # type: ignore[misc]
    """What a transaction has stored, in a file."""

    def begin(self, mark: str, *, cached: bool, kept: bool) -> None:
        self.mark = mark
        #: Whether the client's cache gets it.
        self.cached = cached and kept
        #: Whether it is in the file at all.
        self.kept = kept
        #: One of the objects that the transaction writes.
        self.witness: bytes | None = None
        #: The serials that are replaced, of the objects that are not new.
        self.serials: dict[bytes, bytes] = {}
        self.portion: list[tuple[str, tuple[Any, ...]]] = []
        self.portions = 0
        self.objects = 0

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        for oid, data, _ in super().__iter__():
            yield oid, self.serials.get(oid, z64), data

    def __iter__(self) -> Iterator[tuple[bytes, bytes, bool]]:
        # ZEO goes through this to bring its cache up to date. Of a new object there is no older state in it.
        if self.kept and (self.server_resolved or (self.cached and self.size <= _CACHED_BYTES)):
            yield from super().__iter__()
            return
        self.file.seek(0)
        for oid in self.serials:
            yield oid, b"", False


class BulkClient(ClientStorage):  # type: ignore[misc]
    """A connection to a ZEO server."""

    def __init__(self, address: Any, **options: Any) -> None:
        #: Answers of a hundred new object ids each, in the order in which they come.
        self._ordered: deque[Any] = deque()
        self._newest = b""
        self._stock = threading.Lock()
        super().__init__(address, _client_factory=PatientThread, **options)

    def notify_connected(self, conn: Any, info: Any) -> None:
        super().notify_connected(conn, info)
        # For whoever wants to know when the server answers: a pause that is in nobody's way breaks nothing.
        self.ping = lambda: self._server.call("ping", unlimited=True)

    def notify_disconnected(self) -> None:
        # A server that was started again meanwhile gives the object ids that are in stock to others, too, and
        # then two objects would have one id.
        with self._stock:
            self._ordered = deque()
            self._oids.clear()
        super().notify_disconnected()

    def new_oid(self) -> bytes:
        """An id that no object has, out of a stock."""
        # The server answers when it has taken what it was sent before. ZEO asks when the stock is gone, and
        # then stands still for a third of a commit.
        while True:
            with self._stock:
                while self._oids:
                    oid: bytes = self._oids.pop()
                    # A server that was started again also gives those to us that our transactions have used
                    # and not committed yet.
                    if oid > self._newest:
                        self._newest = oid
                        return oid
                ordered = self._ordered
                while len(ordered) < _ORDERS:
                    answer = self._server.call("new_oids", wait=False)
                    answer.add_done_callback(lambda future: future.exception())  # nobody may come to ask
                    ordered.append(answer)
                answer = ordered.popleft()
            oids = self._server.result_of(answer)
            with self._stock:
                if ordered is self._ordered:  # else the connection was lost since
                    self._oids[:0] = reversed(oids)

    def catch_up(self) -> None:
        """Hear of everything that was committed before this call."""
        self._call("ping")  # the server announces and answers in one order

    def invalidateTransaction(self, tid: bytes, oids: Any) -> None:
        """Tell everybody who reads of a commit.

        One is told after the other, and who has been told (the index) makes others look. Whoever begins to
        look asks for the last transaction first, and waits here until all have been told: so nobody sees an
        older state than somebody else has seen before. ZEO does the same for the commits of its own client.
        """
        with self._cache._lock:
            super().invalidateTransaction(tid, oids)
            self._cache.setLastTid(tid)

    @property
    def keeps_copies(self) -> bool:
        """Whether what was read or written is read again from the client's own cache."""
        return True

    # ------------------------------------------------------------------ storing

    def tpc_begin(self, txn: Any, *args: Any, **kwargs: Any) -> None:
        mark = uuid.uuid4().hex
        txn.extension = {**txn.extension, _MARK: mark}
        super().tpc_begin(txn, *args, **kwargs)
        buffer = txn.data(self)
        buffer.__class__ = _Buffer  # ZEO does not ask which it should be
        buffer.begin(mark, cached=self.keeps_copies, kept=not isinstance(txn, PassingTransaction))

    def store(self, oid: bytes, serial: bytes, data: bytes, version: str, txn: Any) -> None:
        buffer = self._check_trans(txn, "store")
        if buffer.kept:
            buffer.store(oid, data)
        buffer.witness = oid
        buffer.objects += 1
        if serial != z64:
            buffer.serials[oid] = serial
        buffer.portion.append(("storea", (oid, serial, data, id(txn))))
        if len(buffer.portion) >= _PORTION:
            self._send(buffer)

    def _send(self, buffer: _Buffer) -> None:
        portion, buffer.portion = buffer.portion, []
        self._async_iter(portion)
        buffer.portions += 1
        if buffer.portions % _PORTIONS_AHEAD == 0:
            self.catch_up()

    def tpc_vote(self, txn: Any) -> Any:
        buffer = self._check_trans(txn, "tpc_vote")
        self._send(buffer)
        with self._server.voting_on(buffer.objects):
            return super().tpc_vote(txn)

    def tpc_abort(self, txn: Any, timeout: float | None = 0) -> None:
        # A server forgets the transaction with the connection: without one, there is nobody to be told.
        super().tpc_abort(txn, timeout)

    def records(self, txn: Any) -> Iterator[tuple[bytes, bytes, bytes]]:
        """What a transaction has stored: (object id, serial that it replaces, state)."""
        buffer: _Buffer = txn.data(self)
        return buffer.records()

    # ------------------------------------------------------------------ finishing

    def tpc_finish(self, txn: Any, f: Callable[[bytes], Any] = lambda tid: None) -> bytes:
        """Finish a transaction; if the answer is lost, find out whether it has happened.

        :raises ClientDisconnected: it has not.
        :raises OutcomeUnknown: the server cannot be asked now, and who calls does not want to wait for it.
        """
        buffer = self._check_trans(txn, "tpc_finish")
        try:
            tid: bytes = super().tpc_finish(txn, f)
        except ClientDisconnected as error:
            found = self._look_up(buffer.mark, buffer.witness)
            if found is None:
                raise
            logger.warning("%s: the connection was lost in a commit, which has happened (%r)", self, error)
            # What it changed was announced when ZEO's client connected again, like others' changes.
            return found
        return tid

    def _look_up(self, mark: str, witness: bytes | None) -> bytes | None:
        deadline = time.monotonic() + (_LOOK_UP_S if self.is_patient else 0)
        while True:
            if not self.is_patient or self._server.is_closed() or time.monotonic() > deadline:
                raise OutcomeUnknown(
                    f"the connection to {self.getName()} was lost in a commit; whether that has happened is "
                    "not known before the server answers again",
                    partial(self._ask, mark, witness),
                )
            try:
                return self.tid_of(mark, witness)
            except ClientDisconnected:
                self.on_silence()
                time.sleep(_RETRY_S)

    def _ask(self, mark: str, witness: bytes | None) -> bool:
        # Not in the commit itself, which may keep another database locked for those whom this waits for.
        await_earlier_commits(self)
        return self.tid_of(mark, witness) is not None

    def tid_of(self, mark: str, witness: bytes | None) -> bytes | None:
        """The id of the transaction with a mark, found through an object that it wrote; None: not there.

        :raises ClientDisconnected: the server does not come back in time.
        """
        if witness is None:
            return None
        try:
            entries = self.history(witness, _HISTORY)
        except POSKeyError:
            return None
        return next((entry["tid"] for entry in entries if entry.get(_MARK) == mark), None)

    # ------------------------------------------------------------------ silence

    @property
    def is_patient(self) -> bool:
        """Whether calls wait for a silent server, however long; else they end with ``ClientDisconnected``."""
        return True

    def on_silence(self) -> None:
        """A call waits for a server that does not answer."""
