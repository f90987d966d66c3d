"""Database objects read from their pickles, without ZODB's machinery.

Only what is as usual is understood; anything else is :class:`Unexpected`, and the caller asks ZODB.
"""

from __future__ import annotations

import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

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


class Records(ABC):
    """The objects of a database at one moment."""

    @abstractmethod
    def data(self, oid: int) -> bytes:
        """An object as it is stored: its class and its state, pickled one after the other.

        :raises Unexpected: there is none.
        """

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
        unpickler = _Unpickler(_Buffer(self.data(reference.oid)))
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
