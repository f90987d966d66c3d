"""Database objects read from their pickles, without ZODB's machinery.

Only what is as usual is understood; anything else is :class:`Unexpected`, and the caller asks ZODB.
"""

from __future__ import annotations

import io
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs

from motoko_core.study.values import is_value

TREE, _BUCKET = ("BTrees.OOBTree", "OOBTree"), ("BTrees.OOBTree", "OOBucket")
SET = ("BTrees.OOBTree", "OOSet")
#: Classes of objects that are only walked through; importing them takes longer than reading 10,000 runs.
RUN, JOB = ("BlackDynamite.run_zeo", "RunZEO"), ("BlackDynamite.job", "JobZEO")
_WALKED = {
    *(TREE, _BUCKET, SET, ("persistent.mapping", "PersistentMapping")),
    *(("BlackDynamite.lowercase_btree", "PersistentLowerCaseBTree"), RUN, JOB),
}
#: What ZODB writes.
_PROTOCOL = 3
_TREE_BEGIN = b"\x80\x03cBTrees.OOBTree\nOOBTree\nq\x00."
#: A run or a job without attributes has some 300 bytes, and is kept; what scripts set on one may be large.
_SHORT = 500
#: How an object of these classes begins.
_SIMPLE = re.compile(rb"\x80\x03cBTrees\.OOBTree\n(?:OOBTree|OOSet)\nq.\.", re.DOTALL)


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
    def stored(self, oid: int) -> tuple[bytes, bytes]:
        """An object as it is stored, its class and its state pickled one after the other, and the transaction
        that wrote it.

        :raises Unexpected: there is none.
        """

    def state(self, reference: Reference) -> tuple[Any, int]:
        """An object's state, and the number of links to other objects in it."""
        _, state, links = self.load(reference)
        return state, links

    def load(self, reference: Reference) -> tuple[Any, Any, int]:
        """An object's class as (module, name) if it is one of BlackDynamite's, its state, and its links."""
        data, _ = self.stored(reference.oid)
        return unpickled(data)

    def items(self, tree: Reference) -> Iterator[tuple[Any, Any]]:
        """(key, value) of a tree, by key; values are :class:`Reference` where they are objects."""
        for _, keys, values in self.buckets(tree):
            yield from zip(keys, values, strict=True)

    def buckets(self, tree: Reference) -> Iterator[tuple[int | None, Sequence[Any], Sequence[Any]]]:
        """(object id, keys, values) of a tree's buckets, in order; the id is None of one inside the tree."""
        try:
            kind, state, links = self.load(tree)
            if kind != TREE:
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


def unpickled(data: bytes) -> tuple[Any, Any, int]:
    """An object's class as (module, name) if it is one of BlackDynamite's, its state, and its links.

    :param data: as it is stored.
    """
    unpickler = _Unpickler(_Buffer(data))
    unpickler.links = 0
    try:
        kind = unpickler.load()
        return kind, unpickler.load(), unpickler.links
    except Exception as error:  # unpickling may raise anything
        raise Unexpected(f"an object cannot be read: {error!r}") from error


@attrs.frozen
class PlainRecord:
    """A run or a job without its entries.

    :param kind: its class; None if it is not one of BlackDynamite's.
    :param attributes: what scripts have set on it, by names in lower case; not to be changed.
    :param entries: where its entries are, or what there is in their place; so are its configuration files.
    :param is_usual: whether it has no links but those that all have.
    """

    kind: tuple[str, str] | None
    attributes: Mapping[str, Any]
    entries: Any
    configfiles: Any
    is_usual: bool


def plain_record(data: bytes) -> PlainRecord:
    """A run or a job, as it is stored.

    :raises Unexpected: it cannot be read.
    """
    return _kept_record(data) if len(data) < _SHORT else _plain_record(data)


def _plain_record(data: bytes) -> PlainRecord:
    kind, state, links = unpickled(data)
    if not isinstance(state, dict):
        raise Unexpected(f"a record with the state {state!r}")
    attributes = {name.lower(): value for name, value in state.items() if is_value(name)}
    own = sum(type(value) is Reference for name, value in state.items() if not is_value(name))
    return PlainRecord(
        kind if isinstance(kind, tuple) else None,
        attributes,
        state.get("entries"),
        state.get("configfiles"),
        links == own,
    )


# The same ones are looked at again and again.
_kept_record = lru_cache(maxsize=4000)(_plain_record)


def tree_state(data: bytes) -> Any:
    """The state of a tree or a set that has no links to other objects, in a tenth of the time.

    :raises Unexpected: it has some, or it is something else.
    """
    found = _SIMPLE.match(data)
    if found is None:
        raise Unexpected("neither a tree nor a set")
    try:
        return pickle.loads(memoryview(data)[found.end() :])  # it refuses links
    except Exception as error:
        raise Unexpected(f"a tree that cannot be read: {error!r}") from error


def tree_data(state: Any) -> bytes:
    """A tree with a state, as it is stored."""
    return _TREE_BEGIN + pickle.dumps(state, _PROTOCOL)


class _Buffer(io.BytesIO):
    # Unpickling takes half the time when it can look ahead.
    def peek(self, size: int = -1) -> bytes:
        return self.getvalue()[self.tell() :]


class _Unpickler(pickle.Unpickler):
    links: int

    def persistent_load(self, link: Any) -> Reference:
        self.links += 1
        # The class is left out where it was not known; links to other databases, and weak ones, are lists.
        oid = link if isinstance(link, bytes) else link[0] if isinstance(link, tuple) else None
        if oid is None:
            raise Unexpected(f"the link {link!r}")
        return Reference(int.from_bytes(oid, "big"))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _WALKED:
            return module, name
        if module in ("builtins", "datetime"):
            return super().find_class(module, name)
        from ZODB.broken import find_global

        return find_global(module, name)
