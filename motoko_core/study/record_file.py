"""The objects in a database's file, read without ZODB's machinery.

Looking at every run through ZODB costs a tenth of a millisecond each, most of it for objects that nobody
uses, and a server at work leaves no index on disk, so that opening the file means scanning it with
FileStorage's slow loop. Here the scan takes a microsecond per record, and a run some ten.

Only what is as usual is understood; anything else is :class:`Unexpected`, and the caller asks ZODB.
"""

from __future__ import annotations

import os
import struct
import weakref
from array import array
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path

from motoko_core.study.plain_objects import Records, Unexpected

_MAGIC = b"FS30"
#: id, length, status, lengths of user, description and extension (``ZODB/FileStorage/format.py``).
_TRANSACTION = struct.Struct(">QQcHHH")
#: object id, transaction id, previous record, start of the transaction, length of a version, length.
_RECORD = struct.Struct(">Q8sQQHQ")
_LENGTH = struct.Struct(">Q")
#: Of what is not in the file as it was committed: ``c`` is a transaction that is not finished.
_UNFINISHED, _FINISHED = b"c", (b" ", b"p")
_CHUNK = 4 * 2**20
#: Nearly all records are shorter, and one read is enough.
_USUAL_LENGTH = 768
#: The table of places takes 8 bytes per id; ids are given one after the other.
_HIGHEST_ID = 2**27


class RecordFile(Records):
    """The objects of a FileStorage as they were last committed when it was opened.

    What is committed later does not show before :meth:`follow`, and a file that is packed or replaced
    meanwhile is still read.

    :raises Unexpected: it is not a FileStorage as usual.
    :raises OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # With the last reference: other threads may be reading when somebody has done with it.
        self._close = weakref.finalize(self, os.close, self._descriptor)
        #: Object id -> where its latest record is; 0: it has none.
        self._places = array("Q")
        #: The ids of the transactions, ascending.
        self._transactions = array("Q")
        #: Where the last one begins, and where the next one will.
        self._begin = self._end = len(_MAGIC)
        try:
            if os.pread(self._descriptor, len(_MAGIC), 0) != _MAGIC:
                raise Unexpected("it is not a FileStorage")
            self.follow()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._close()

    @property
    def last(self) -> bytes:
        """The id of the last transaction."""
        last = self._transactions[-1] if self._transactions else 0
        return last.to_bytes(8, "big")

    def has(self, transaction: bytes) -> bool:
        """Whether a transaction was taken in."""
        known, tid = self._transactions, int.from_bytes(transaction, "big")
        place = bisect_left(known, tid)
        return place < len(known) and known[place] == tid

    def follow(self) -> None:
        """Take in what was committed since; one thread at a time.

        :raises Unexpected: it is not as usual.
        :raises OSError: it cannot be read.
        """
        if self._transactions and os.pread(self._descriptor, len(self.last), self._begin) != self.last:
            raise Unexpected("what was committed is not in it any more: another file was copied over it")
        with suppress(struct.error):  # it became shorter: a transaction that was not finished was taken back
            self._scan()

    def is_at(self, path: Path) -> bool:
        """Whether the file at a path is still this one."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    # Mapping the file into memory would be simpler, but a server that cuts off an unfinished transaction
    # would kill the reader with SIGBUS.
    def _scan(self) -> None:
        places, record_length, known = self._places, _RECORD.size, self._transactions
        size = os.fstat(self._descriptor).st_size
        # ``data`` is the file from ``base`` on; ``limit``: read no header there
        data, base, limit = b"", 0, 0
        begin = self._end
        while begin + _TRANSACTION.size <= size:
            if begin >= limit:
                data, base, limit = self._chunk(begin, size)
            tid, length, status, *texts = _TRANSACTION.unpack_from(data, begin - base)
            end = begin + length
            if end + 8 > size or status == _UNFINISHED:
                break
            at = begin + _TRANSACTION.size + sum(texts)
            if status not in _FINISHED:
                raise Unexpected(f"a transaction with status {status!r}")
            while at < end:
                if at >= limit:
                    data, base, limit = self._chunk(at, size)
                oid, _, _, start, version, stored = _RECORD.unpack_from(data, at - base)
                if start != begin or version:
                    raise Unexpected("a record that does not belong to its transaction")
                try:
                    places[oid] = at
                except IndexError:
                    self._grow(oid)
                    places[oid] = at
                at += record_length + (stored or 8)  # one without data points back at earlier data
            if at != end:
                raise Unexpected("records that do not add up to their transaction")
            if at >= limit:
                data, base, limit = self._chunk(at, size)
            if _LENGTH.unpack_from(data, at - base)[0] != length:
                raise Unexpected("a transaction with two lengths")
            if known and tid <= known[-1]:
                raise Unexpected("a transaction that is older than the one before it")
            known.append(tid)
            self._begin = begin
            begin = self._end = end + 8

    def _chunk(self, at: int, size: int) -> tuple[bytes, int, int]:
        data = os.pread(self._descriptor, min(_CHUNK, size - at), at)
        return data, at, max(at + 1, at + len(data) - _RECORD.size)

    def _grow(self, oid: int) -> None:
        if oid > _HIGHEST_ID:
            raise Unexpected(f"the object id {oid}")
        self._places.frombytes(bytes(8 * (oid + 1 - len(self._places) + len(self._places) // 2)))

    # ------------------------------------------------------------------ objects

    def revision(self, oid: int, before: bytes | None = None) -> tuple[bytes, bytes, bytes | None] | None:
        """An object as it was before a transaction: its data, the transaction that wrote it, and the next one
        that did (None: none that was taken in). None: there is nothing here that says so by itself.

        :param before: None: as it was last committed. Of what was not taken in yet, nothing is known.
        :raises Unexpected: the file is damaged.
        :raises OSError: it cannot be read.
        """
        following: bytes | None = None
        place = self._places[oid] if oid < len(self._places) else 0
        while place:
            data, tid, earlier, length = self._record(oid, place)
            if before is None or tid < before:
                while not length:  # it was undone: its data is that of an earlier record
                    back: int = _LENGTH.unpack_from(data, _RECORD.size)[0]
                    if not back:
                        return None  # the creation was undone
                    if back >= place:
                        raise Unexpected("a record that points ahead")
                    place = back
                    data, _, _, length = self._record(oid, place)
                if length > _USUAL_LENGTH - _RECORD.size:
                    data = os.pread(self._descriptor, _RECORD.size + length, place)
                state = data[_RECORD.size : _RECORD.size + length]
                return (state, tid, following) if len(state) == length else None
            following, place = tid, earlier
        return None

    def _record(self, oid: int, place: int) -> tuple[bytes, bytes, int, int]:
        """The first bytes of a record, its transaction, where the record before it is, and its length."""
        data = os.pread(self._descriptor, _USUAL_LENGTH, place)
        try:
            found, tid, earlier, _, _, length = _RECORD.unpack_from(data)
        except struct.error as error:
            raise Unexpected("the file ends too early") from error
        if found != oid:
            raise Unexpected(f"object {found} in the place of {oid}")
        return data, tid, earlier, length

    def stored(self, oid: int) -> tuple[bytes, bytes]:
        found = self.revision(oid)
        if found is None:
            raise Unexpected(f"object {oid} has no data")
        return found[:2]


class EarlierRecords(Records):
    """The objects of a file as they were before a transaction, whatever the file takes in meanwhile."""

    def __init__(self, file: RecordFile, before: bytes) -> None:
        self._file = file
        self.before = before

    def stored(self, oid: int) -> tuple[bytes, bytes]:
        try:
            found = self._file.revision(oid, self.before)
        except OSError as error:
            raise Unexpected(f"object {oid} cannot be read: {error}") from error
        if found is None:
            raise Unexpected(f"object {oid} has no data before {self.before!r}")
        return found[:2]
