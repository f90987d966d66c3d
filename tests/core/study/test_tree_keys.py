"""What came into a tree and went out of it is told from the buckets that changed, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from persistent import Persistent

from motoko_core.study.rows import Rows
from motoko_core.study.tree_keys import TreeKeys


class Item(Persistent):  # type: ignore[misc]
    pass


class Trees:
    """A tree that one connection changes and another one watches."""

    def __init__(self) -> None:
        self.db = ZODB.DB(None)
        self.mine, self.theirs = transaction.TransactionManager(), transaction.TransactionManager()
        root = self.db.open(self.theirs).root
        root.tree = self.tree = OOBTree()
        self.theirs.commit()
        connection = self.db.open(self.mine)
        self.announced: set[bytes] = set()
        poll = connection._storage.poll_invalidations

        def note() -> list[bytes]:
            oids = poll()
            self.announced.update(oids)
            return list(oids)

        connection._storage.poll_invalidations = note
        self.watched = connection.root.tree
        self.keys, self.known = TreeKeys(), Rows()
        self._enter(self.keys.fill(self.watched))

    def _enter(self, keys: Any) -> None:
        for key in keys:
            if key in self.watched:
                self.known.put(key, (0, None))
            else:
                self.known.drop(key)

    def change(self, put: Any = (), drop: Any = ()) -> None:
        for key in put:
            self.tree[key] = Item()
        for key in drop:
            self.tree.pop(key, None)
        self.theirs.commit()

    def look(self) -> set[int]:
        """What the watcher takes for moved; it is what did move."""
        self.mine.begin()
        before = set(self.known)
        moved = self.keys.moved(self.watched, self.announced, self.known)
        self.announced.clear()
        assert moved == before ^ set(self.watched.keys())
        self._enter(moved)
        return moved


@contextmanager
def trees() -> Iterator[Trees]:
    found = Trees()
    try:
        yield found
    finally:
        found.mine.abort()
        found.theirs.abort()
        found.db.close()


#: Ranges of keys, some of which make many buckets and some of which empty several in a row.
RANGES = st.tuples(st.integers(1, 600), st.integers(0, 250), st.sampled_from([1, 1, 2, 7])).map(
    lambda r: range(r[0], r[0] + r[1], r[2])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(steps=st.lists(st.lists(st.tuples(RANGES, RANGES), min_size=1, max_size=3), max_size=8))
def test_every_key_that_moved_is_found(steps: list[list[tuple[range, range]]]) -> None:
    with trees() as it:
        for transactions in steps:
            for put, drop in transactions:
                it.change(put, drop)
            it.look()


def test_whole_buckets_can_go() -> None:
    """Nobody but the tree itself, or the bucket before, changes then."""
    with trees() as it:
        it.change(range(1, 301))
        it.look()
        first = list(it.tree._firstbucket.keys())
        it.change(drop=first)
        assert it.look() == set(first)
        second = list(it.tree._firstbucket._next.keys())
        it.change(drop=second)
        assert it.look() == set(second)
        last = [key for key in it.tree if key > 280]
        it.change(drop=last)
        assert it.look() == set(last)
        it.change(drop=range(1, 301))
        it.look()
        it.change(put=range(5, 100))
        assert it.look() == set(range(5, 100))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(first=RANGES, put=RANGES, drop=RANGES, savepoint=st.booleans())
def test_what_a_session_itself_has_moved_is_found(
    first: range, put: range, drop: range, savepoint: bool
) -> None:
    """Runs beyond the table excepted, which nobody looks for there; and nothing is noted."""
    with trees() as it:
        it.change(first)
        it.look()
        for key in put:
            it.watched[key] = Item()
        if savepoint:
            it.mine.savepoint()
        for key in drop:
            it.watched.pop(key, None)
        connection = it.watched._p_jar
        oids = {obj._p_oid for obj in connection._registered_objects}
        if connection._savepoint_storage is not None:
            oids.update(connection._savepoint_storage.index)
        moved = it.keys.differing(it.watched, oids, it.known)
        expected = set(it.known) ^ set(it.watched.keys())
        assert {i for i in moved if i <= it.known.highest} == {i for i in expected if i <= it.known.highest}
        assert moved <= expected
        it.mine.abort()
        it.change(range(700, 720), first[:3])
        it.look()


@pytest.mark.parametrize("key", [1, 500, 1000])
def test_a_change_looks_at_the_neighbourhood_only(key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with trees() as it:
        it.change(range(1, 1001))
        it.look()
        looked_at: list[int] = []
        contains = Rows.__contains__
        monkeypatch.setattr(Rows, "__contains__", lambda rows, k: looked_at.append(k) or contains(rows, k))
        it.change(drop=[key])
        it.look()
        assert len(looked_at) < 200
