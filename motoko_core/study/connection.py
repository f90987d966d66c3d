"""ZODB connections whose transactions may be larger than the memory.

A savepoint of ZODB writes what is new into a file too, but it keeps some three hundred bytes in memory for
each object, and as much again when it commits. Here it is about forty: the indexes are those in which
FileStorage keeps the positions of its objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from BTrees.fsBTree import fsBucket
from BTrees.OOBTree import OOBTree, OOBucket
from ZODB.Connection import Connection, TmpStore
from ZODB.fsIndex import fsIndex
from ZODB.utils import z64


class _Index(fsIndex):  # type: ignore[misc]
    """Object id -> number."""

    def copy(self) -> _Index:
        other = _Index()
        for prefix, bucket in self._data.items():
            other._data[prefix] = fsBucket().fromString(bucket.toString())
        return other


class _Spilled(TmpStore):  # type: ignore[misc]
    """The file of objects that are new or changed, in front of the storage."""

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        self.index: Any = _Index()
        self.creating = _Index()

    def prefetch(self, oids: Iterable[bytes]) -> None:
        self._storage.prefetch([oid for oid in oids if oid not in self.index])


def _is_users(obj: Any) -> bool:
    """Whether an object in memory is a part of a run or a job; the study's own trees have other keys."""
    if obj is None or obj._p_changed is None:
        return False
    if isinstance(obj, (OOBTree, OOBucket)):
        return any(isinstance(key, str) for key in islice(obj.keys(), 1))
    return True


class SpillingConnection(Connection):  # type: ignore[misc]
    """A connection that can move what a transaction has created out of memory."""

    _storage: Any
    _savepoint_storage: Any
    _registered_objects: list[Any]

    #: Whether the transaction has looked for runs: it may have concluded something from those that are not.
    has_searched = False
    #: Runs of which the index has said something to the transaction: nothing of them need be in memory.
    told_of: set[int]
    #: Another number as soon as objects may look different: one was changed, or a newer state is seen.
    view = 0

    def newTransaction(self, transaction: Any, sync: bool = True) -> None:
        self.has_searched = False
        self.told_of = set()
        start = self._snapshot
        super().newTransaction(transaction, sync)
        if self._snapshot != start:
            self.view += 1

    @property
    def _snapshot(self) -> bytes | None:
        """What was committed before it can be seen; None in a connection that is opened in the past."""
        return getattr(self._normal_storage, "_start", None)

    def _register(self, obj: Any = None) -> None:
        self.view += 1
        super()._register(obj)

    def catch_up(self, counters: Any, runs_of: Callable[[set[bytes]], set[int]]) -> bool:
        """See the newest state of a study, as if the transaction began now.

        :param counters: what every creation of a task changes; if it is as it was, nothing needs to be done.
        :param runs_of: the runs that objects belong to, by their ids.
        :returns: False if that could make a difference: the transaction has changed or searched something, or
            has read what was changed since, or was told of it.
        """
        missed = self._normal_storage._invalidations
        if missed is not None and counters._p_oid not in missed:
            return True
        if missed is None or not self._needs_to_join or self.has_searched:
            return False
        missed = missed - {counters._p_oid}
        if any(_is_users(self._cache.get(oid)) for oid in missed):
            return False
        if self.told_of and not self.told_of.isdisjoint(runs_of(missed)):
            return False
        told_of = self.told_of
        self.newTransaction(None, False)
        self.told_of = told_of
        return True

    def spill(self) -> None:
        """Move what the transaction has created and changed out of memory, into a file, until the commit.

        It is read back when it is looked at.
        """
        if self._registered_objects:
            self._write_out()
        self.cacheMinimize()

    def _write_out(self) -> None:
        self._spill()
        self._creating.clear()
        self._commit(None)
        self._storage.creating.update(self._creating)
        self._creating.clear()
        self._registered_objects = []

    def savepoint(self) -> Any:
        self._spill()
        return super().savepoint()

    def _abort_savepoint(self) -> None:
        self._forget_positions()
        super()._abort_savepoint()

    def _rollback_savepoint(self, state: Any) -> None:
        self._forget_positions()
        super()._rollback_savepoint(state)

    def _forget_positions(self) -> None:
        # What is left of the index tells ZODB which objects in memory to drop.
        spilled = self._savepoint_storage
        spilled.index = [oid for oid in spilled.index if self._cache.get(oid) is not None]

    def _spill(self) -> None:
        if self._savepoint_storage is None:
            self._savepoint_storage = self._storage = _Spilled(self._normal_storage)

    def _commit_savepoint(self, transaction: Any) -> None:
        spilled = self._savepoint_storage
        if spilled._blob_dir is not None:
            super()._commit_savepoint(transaction)
            return
        self._storage, self._savepoint_storage = self._normal_storage, None
        client = self._storage._storage
        try:
            # Noted before anything is stored: if that fails, all of it has to leave the memory.
            for oid in spilled.index:
                if self._cache.get(oid) is not None:
                    self._modified.append(oid)
                    if oid in spilled.creating:
                        self._creating[oid] = spilled.creating[oid]
            for oid in spilled.index:
                data, serial = spilled.load(oid)
                if oid in spilled.creating and self._cache.get(oid) is None:
                    # Nobody has it in memory, in any connection: nobody needs to be told.
                    client.store(oid, z64, data, "", transaction)
                else:
                    self._storage.store(oid, serial, data, "", transaction)
                    self._readCurrent.pop(oid, None)
        finally:
            spilled.close()
