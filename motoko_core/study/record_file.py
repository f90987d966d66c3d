"""The objects in a database's file, read without ZODB's machinery.

Looking at every run through ZODB costs a tenth of a millisecond each, most of it for objects that nobody
uses, and a server at work leaves no index on disk, so that opening the file means scanning it with
FileStorage's slow loop. Here the scan takes a microsecond per record, and a run some ten.

Only what is as usual is understood; anything else is :class:`Unexpected`, and the caller asks ZODB.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_MAGIC = b"FS30"
#: id, length, status, lengths of user, description and extension (``ZODB/FileStorage/format.py``).
_TRANSACTION = struct.Struct(">8sQcHHH")
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

_TREE, _BUCKET = ("BTrees.OOBTree", "OOBTree"), ("BTrees.OOBTree", "OOBucket")
#: Classes of objects that are only walked through; importing them takes longer than reading 10,000 runs.
RUN, JOB = ("BlackDynamite.run_zeo", "RunZEO"), ("BlackDynamite.job", "JobZEO")
_WALKED = {
    *(_TREE, _BUCKET, ("BTrees.OOBTree", "OOSet"), ("persistent.mapping", "PersistentMapping")),
    *(("BlackDynamite.lowercase_btree", "PersistentLowerCaseBTree"), RUN, JOB),
}


class Unexpected(Exception):
    """The file has something in it that only ZODB itself knows how to read, or to refuse."""


class Reference:
    """A link from one object to another."""

    __slots__ = ("oid",)

    def __init__(self, oid: int) -> None:
        self.oid = oid


#: What every database begins with.
ROOT = Reference(0)


class RecordFile:
    """The objects of a FileStorage as they were last committed when it was opened.

    What is committed later does not show, and a file that is packed or replaced meanwhile is still read.

    :raises Unexpected: it is not a FileStorage as usual.
    :raises OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._descriptor = self._file.fileno()
        #: Object id -> where its latest record is; 0: it has none.
        self._places = array("Q")
        #: The id of the last transaction.
        self.last = bytes(8)
        try:
            self._scan()
        except struct.error as error:  # it became shorter meanwhile
            self.close()
            raise Unexpected("the file ends too early") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    # Mapping the file into memory would be simpler, but a server that cuts off an unfinished transaction
    # would kill the reader with SIGBUS.
    def _scan(self) -> None:
        descriptor, places, record_length = self._descriptor, self._places, _RECORD.size
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 4, 0) != _MAGIC:
            raise Unexpected("it is not a FileStorage")
        data, base, limit = (
            b"",
            0,
            0,
        )  # ``data`` is the file from ``base`` on; ``limit``: read no header there
        begin = 4
        while begin + _TRANSACTION.size <= size:
            if begin >= limit:
                data, base, limit = self._chunk(begin)
            tid, length, status, *texts = _TRANSACTION.unpack_from(data, begin - base)
            end = begin + length
            if end + 8 > size or status == _UNFINISHED:
                break
            at = begin + _TRANSACTION.size + sum(texts)
            if status not in _FINISHED:
                raise Unexpected(f"a transaction with status {status!r}")
            while at < end:
                if at >= limit:
                    data, base, limit = self._chunk(at)
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
                data, base, limit = self._chunk(at)
            if _LENGTH.unpack_from(data, at - base)[0] != length:
                raise Unexpected("a transaction with two lengths")
            self.last = tid
            begin = end + 8

    def _chunk(self, at: int) -> tuple[bytes, int, int]:
        data = os.pread(self._descriptor, _CHUNK, at)
        return data, at, max(at + 1, at + len(data) - _RECORD.size)

    def _grow(self, oid: int) -> None:
        if oid > _HIGHEST_ID:
            raise Unexpected(f"the object id {oid}")
        self._places.frombytes(bytes(8 * (oid + 1 - len(self._places) + len(self._places) // 2)))

    # ------------------------------------------------------------------ objects

    def state(self, reference: Reference) -> tuple[Any, int]:
        """An object's state, and the number of links to other objects in it."""
        _, state, links = self.load(reference)
        return state, links

    def load(self, reference: Reference) -> tuple[Any, Any, int]:
        """An object's class as (module, name) if it is one of BlackDynamite's, its state, and its links."""
        try:
            return self._load(reference)
        except Unexpected:
            raise
        except Exception as error:  # unpickling may raise anything
            raise Unexpected(f"object {reference.oid}: {error!r}") from error

    def _load(self, reference: Reference) -> tuple[Any, Any, int]:
        place = self._places[reference.oid]
        data = os.pread(self._descriptor, _USUAL_LENGTH, place)
        oid, _, _, _, _, length = _RECORD.unpack_from(data)
        if not place or oid != reference.oid or not length:
            raise Unexpected(f"object {reference.oid} has no data")
        if length > _USUAL_LENGTH - _RECORD.size:
            data = os.pread(self._descriptor, _RECORD.size + length, place)
        buffer = _Buffer(data)
        buffer.seek(_RECORD.size)
        unpickler = _Unpickler(buffer)
        unpickler.links = 0
        kind = unpickler.load()
        return kind, unpickler.load(), unpickler.links

    def items(self, tree: Reference) -> Iterator[tuple[Any, Any]]:
        """(key, value) of a tree, by key; values are :class:`Reference` where they are objects."""
        for _, keys, values in self.buckets(tree):
            yield from zip(keys, values, strict=True)

    def buckets(self, tree: Reference) -> Iterator[tuple[int | None, Sequence[Any], Sequence[Any]]]:
        """(object id, keys, values) of a tree's buckets, in order; the id is None of one inside the tree."""
        try:
            kind, state, links = self.load(tree)
            if kind != _TREE:
                raise Unexpected(f"{kind!r} instead of a tree")
            if state is None:
                return
            place: Reference | None = None
            if len(state) == 1:  # a small tree keeps its only bucket inside
                bucket, following = _checked(state[0][0], links)
            else:
                place = state[1]
                bucket, following = self._bucket(state[1])
            while True:
                yield None if place is None else place.oid, bucket[::2], bucket[1::2]
                if following is None:
                    return
                place = following
                bucket, following = self._bucket(place)
        except Unexpected:
            raise
        except Exception as error:
            raise Unexpected(f"a tree: {error!r}") from error

    def _bucket(self, reference: Reference) -> tuple[Any, Reference | None]:
        kind, state, links = self.load(reference)
        if kind != _BUCKET:
            raise Unexpected(f"{kind!r} instead of a bucket")
        return _checked(state, links)


def _checked(bucket: Any, links: int) -> tuple[Any, Reference | None]:
    """The keys and values of a bucket in turn, and the next bucket."""
    following = bucket[1] if len(bucket) == 2 else None
    if links != sum(type(value) is Reference for value in bucket[0][1::2]) + (following is not None):
        raise Unexpected("a value with an object in it")
    return bucket[0], following


class _Buffer(io.BytesIO):
    # Unpickling takes half the time when it can look ahead.
    def peek(self, size: int = -1) -> bytes:
        return self.getvalue()[self.tell() :]


class _Unpickler(pickle.Unpickler):
    links: int

    def persistent_load(self, link: Any) -> Reference:
        self.links += 1
        oid, _ = link  # links to other databases, and weak ones, look otherwise
        return Reference(int.from_bytes(oid, "big"))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _WALKED:
            return module, name
        if module in ("builtins", "datetime"):
            return super().find_class(module, name)
        from ZODB.broken import find_global

        return find_global(module, name)
