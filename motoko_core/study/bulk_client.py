"""The client of a ZEO server: commits in few messages, and commits whose answer is lost.

ZEO hands every stored object to its network thread by itself, and for the small objects of a task that costs
more than all the rest. Here they are handed over by the hundred, and after every few thousand the server is
asked for a sign of life: what it has not taken yet does not pile up in memory.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZEO.TransactionBuffer import TransactionBuffer
from ZODB.POSException import POSKeyError
from ZODB.utils import z64

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
_MARK = "motoko"


class _Buffer(TransactionBuffer):  # type: ignore[misc]
    """What a transaction has stored, in a file."""

    def begin(self, mark: str) -> None:
        self.mark = mark
        #: One of the objects that the transaction writes.
        self.witness: bytes | None = None
        #: The serials that are replaced, of the objects that are not new.
        self.serials: dict[bytes, bytes] = {}
        self.portion: list[tuple[str, tuple[Any, ...]]] = []
        self.portions = 0

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        for oid, data, _ in super().__iter__():
            yield oid, self.serials.get(oid, z64), data

    def __iter__(self) -> Iterator[tuple[bytes, bytes, bool]]:
        # ZEO goes through this to bring its cache up to date. Of a new object there is no older state in it.
        if self.size <= _CACHED_BYTES or self.server_resolved:
            yield from super().__iter__()
            return
        self.file.seek(0)
        for oid in self.serials:
            yield oid, b"", False


class BulkClient(ClientStorage):  # type: ignore[misc]
    """A connection to a ZEO server."""

    def __init__(self, *args: Any, **options: Any) -> None:
        #: Answers of a hundred new object ids each, in the order in which they come.
        self._ordered: deque[Any] = deque()
        super().__init__(*args, **options)

    def notify_disconnected(self) -> None:
        # A server that was started again meanwhile gives the object ids that are in stock to others, too, and
        # then two objects would have one id.
        self._ordered = deque()
        self._oids.clear()
        super().notify_disconnected()

    def new_oid(self) -> bytes:
        """An id that no object has, out of a stock."""
        # The server answers when it has taken what it was sent before. ZEO asks when the stock is gone, and
        # then stands still for a third of a commit.
        while not self._oids:
            ordered = self._ordered
            while len(ordered) < _ORDERS:
                answer = self._server.call("new_oids", wait=False)
                answer.add_done_callback(lambda future: future.exception())  # nobody may come to ask
                ordered.append(answer)
            self._oids[:0] = reversed(ordered.popleft().result())
        oid: bytes = self._oids.pop()
        return oid

    def catch_up(self) -> None:
        """Hear of everything that was committed before this call."""
        self._call("ping")  # the server announces and answers in one order

    # ------------------------------------------------------------------ storing

    def tpc_begin(self, txn: Any, *args: Any, **kwargs: Any) -> None:
        mark = uuid.uuid4().hex
        txn.extension = {**txn.extension, _MARK: mark}
        super().tpc_begin(txn, *args, **kwargs)
        buffer = txn.data(self)
        buffer.__class__ = _Buffer  # ZEO does not ask which it should be
        buffer.begin(mark)

    def store(self, oid: bytes, serial: bytes, data: bytes, version: str, txn: Any) -> None:
        buffer = self._check_trans(txn, "store")
        buffer.store(oid, data)
        buffer.witness = oid
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
        self._send(self._check_trans(txn, "tpc_vote"))
        return super().tpc_vote(txn)

    def records(self, txn: Any) -> Iterator[tuple[bytes, bytes, bytes]]:
        """What a transaction has stored: (object id, serial that it replaces, state)."""
        buffer: _Buffer = txn.data(self)
        return buffer.records()

    # ------------------------------------------------------------------ finishing

    def tpc_finish(self, txn: Any, f: Callable[[bytes], Any] = lambda tid: None) -> bytes:
        """Finish a transaction; if the answer is lost, find out whether it has happened.

        :raises ClientDisconnected: it has not; or the server does not come back in time to be asked.
        """
        buffer = self._check_trans(txn, "tpc_finish")
        try:
            tid: bytes = super().tpc_finish(txn, f)
        except ClientDisconnected as error:
            found = self.tid_of(buffer.mark, buffer.witness)
            if found is None:
                raise
            logger.warning("%s: the connection was lost in a commit, which has happened (%r)", self, error)
            # What it changed was announced when ZEO's client connected again, like others' changes.
            return found
        return tid

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
