"""Which keys came into a BTree of the database, or went out of it, told from its changed buckets alone."""

from __future__ import annotations

from typing import Any

from ZODB.POSException import POSKeyError

from motoko_core.study.rows import Rows


class TreeKeys:
    """Knows the buckets of a tree with integer keys, so that a change costs nothing for the others.

    A split moves keys from one bucket to the next, a bucket that becomes empty is taken out of the chain: the
    keys of a changed bucket are compared with what is known of the range between its neighbours.
    """

    def __init__(self) -> None:
        self._buckets: set[bytes] = set()

    def fill(self, tree: Any) -> list[int]:
        """Note all buckets; answer all keys."""
        self._buckets = set()
        keys: list[int] = []
        bucket = _first_bucket(tree)
        if bucket is None:
            return list(tree.keys())
        while bucket is not None:
            self._buckets.add(bucket._p_oid)
            keys += bucket.keys()
            bucket = bucket._next
        return keys

    def note(self, bucket: bytes) -> None:
        """Note one bucket of a tree that is read otherwise."""
        self._buckets.add(bucket)

    def moved(self, tree: Any, oids: set[bytes], known: Rows) -> set[int]:
        """Keys that came in or went out; the buckets are noted as they are now.

        :param oids: the ids of the database objects that changed.
        :param known: the table that has a row for each key that the tree had before.
        """
        touched, new, empty = self._look(tree, oids, known)
        self._buckets |= new
        self._buckets -= empty
        return touched

    def differing(self, tree: Any, oids: set[bytes], known: Rows) -> set[int]:
        """The same for a session's own changes: nothing is noted."""
        return self._look(tree, oids, known)[0]

    def _look(self, tree: Any, oids: set[bytes], known: Rows) -> tuple[set[int], set[bytes], set[bytes]]:
        """The keys, the buckets that were not known, and those that are empty now."""
        touched: set[int] = set()
        new: set[bytes] = set()
        empty: set[bytes] = set()

        def walk(bucket: Any) -> None:
            # Up to the next known one. Keys that are higher than all that were known need no comparison:
            # whoever looks for runs beyond the table finds them in the tree.
            while bucket is not None and bucket._p_oid not in self._buckets and bucket._p_oid not in new:
                if bucket._p_oid is not None:  # else a session has just made it
                    new.add(bucket._p_oid)
                elif bucket.minKey() > known.highest:
                    return
                touched.update(_compare(tree, bucket, known))
                bucket = bucket._next

        if tree._p_oid in oids:
            first = _first_bucket(tree)
            if first is None:  # a small tree keeps its only bucket inside
                return _unlike(set(tree.keys()), known.lowest, known.highest + 1, known), new, self._buckets
            touched.update(key for key in range(known.lowest, tree.minKey()) if key in known)
            walk(first)
        for oid in oids & self._buckets:
            try:
                bucket = tree._p_jar.get(oid)
                is_empty = not bucket
            except POSKeyError:
                is_empty = True
            if is_empty:  # its keys are found missing by its neighbour, or by the tree if it was the first
                empty.add(oid)
                continue
            touched |= _compare(tree, bucket, known)
            walk(bucket._next)
        return touched, new, empty


def _first_bucket(tree: Any) -> Any:
    """The first bucket that is an object of its own; None if the tree has none."""
    bucket = tree._firstbucket if tree else None
    return None if bucket is None or (bucket._p_oid is None and bucket._p_jar is None) else bucket


def _compare(tree: Any, bucket: Any, known: Rows) -> set[int]:
    """Keys that came into the range of a bucket, or went out of it."""
    now = set(bucket.keys())
    following = bucket._next
    try:
        begin = tree.maxKey(min(now) - 1) + 1
    except ValueError:  # there is no smaller key
        begin = known.lowest
    end = following.minKey() if following is not None else known.highest + 1
    return _unlike(now, begin, end, known)


def _unlike(now: set[int], begin: int, end: int, known: Rows) -> set[int]:
    gone = {key for key in range(begin, end) if key in known and key not in now}
    return {key for key in now if key not in known} | gone
