"""The in-memory table of a study's runs, kept current from what the ZEO server announces.

It is filled once and then only touched for runs that changed: what a change costs does not grow with the
number of runs. Who selects in a session trusts it for the runs that look the same in the session's snapshot
(:meth:`RunIndex.changed_since` names the others).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import transaction
from ZODB.utils import p64, u64

from motoko_core.interfaces import RunChange
from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.rows import Rows
from motoko_core.study.run_table import RunTable, States

if TYPE_CHECKING:
    from motoko_core.study.database import StudyDatabase

logger = logging.getLogger("motoko.index")

Listener = Callable[[Sequence[RunChange]], None]

#: A change log entry is about 100 bytes; a session that is older than the log checks every run.
_LOG_LENGTH = 5_000
#: Objects that the index's own connection keeps: the trees, mostly.
_CACHED_OBJECTS = 5_000
#: How long a thread that reads may go on when the index is closed.
_PATIENCE_S = 3.0


class RunIndex:
    """Run id -> scalar values, with sets by run_name and state. All methods may be called from any thread."""

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        #: Held while the table changes, and by whoever asks for several things that belong together.
        self.lock = threading.RLock()
        #: How often the table has changed.
        self.version = 0
        self._manager = transaction.TransactionManager(explicit=True)
        self._connection = study.open(self._manager)
        self._connection._cache.cache_size = _CACHED_OBJECTS
        self._storage = self._connection._storage
        self._poll = self._storage.poll_invalidations
        self._polled: list[bytes] | None = []
        self._announcing: list[Callable[[], None]] = []
        self._hook()
        #: How often announcements were lost: then a run that looks as before may have changed all the same.
        self.losses = 0
        self._has_lost = False
        self._log: deque[tuple[bytes, frozenset[int]]] = deque(maxlen=_LOG_LENGTH)
        self._log_start = b""
        #: Called, under the lock, with what a look has found: nothing, perhaps, if :attr:`losses` has grown.
        self.listeners: list[Listener] = []
        try:
            self._manager.begin()
            study.base_on(self._connection)
            self._table = self._filled()
            self._has_lost = False
            self._manager.abort()
        except BaseException:
            self._manager.abort()
            self.close()
            raise
        self._log_start = self.snapshot

    # ------------------------------------------------------------------ reading

    @property
    def rows(self) -> Rows:
        """The values of the runs, by id."""
        return self._table.rows

    @property
    def jobs(self) -> Rows:
        """The values of the jobs that runs refer to, by id."""
        return self._table.jobs

    @property
    def jobless(self) -> set[int]:
        """Ids of the runs whose job was deleted: no selection gives them."""
        return self._table.jobless

    @property
    def snapshot(self) -> bytes:
        """The end of what was taken in: transactions before it are."""
        start: bytes = self._storage._start
        return max(start, self._table.end)

    def states(self, run_name: str | None) -> dict[str | None, int]:
        """Number of runs by state, of one run_name or of all."""
        counts: dict[str | None, int] = {}
        with self.lock:
            for (name, state), ids in self._table.groups.items():
                if run_name in (None, name):
                    counts[state] = counts.get(state, 0) + len(ids)
        return counts

    def candidates(
        self, run_names: frozenset[Any] | None = None, states: frozenset[Any] | None = None
    ) -> set[int]:
        """Ids of the runs with one of these names and states; None: any."""
        with self.lock:
            return set().union(*self._matching_groups(run_names, states))

    def count(self, run_names: frozenset[Any] | None = None, states: frozenset[Any] | None = None) -> int:
        """Number of the runs with one of these names and states; None: any."""
        with self.lock:
            return sum(map(len, self._matching_groups(run_names, states)))

    def _matching_groups(
        self, run_names: frozenset[Any] | None, states: frozenset[Any] | None
    ) -> Iterator[set[int]]:
        for (name, state), ids in self._table.groups.items():
            if (run_names is None or name in run_names) and (states is None or state in states):
                yield ids

    def changed_since(self, start: bytes) -> set[int] | None:
        """Ids of the runs that may look different in a snapshot that began at ``start``; None: any may."""
        with self.lock:
            if not self._is_caught_up(start) or start < self._log_start:
                return None
            changed: set[int] = set()
            for end, ids in reversed(self._log):
                if end <= start:
                    break
                changed |= ids
            return changed

    def _is_caught_up(self, start: bytes) -> bool:
        """Take in what was committed before ``start``."""
        if start > self.snapshot or self._polled != []:
            self.refresh()
        return start <= self.snapshot

    def runs_of(self, oids: set[bytes]) -> set[int]:
        """Ids of the runs that objects belong to, as parts of the runs or of their jobs."""
        with self.lock:
            return set().union(*map(self._table.runs_of, oids))

    def touched(self, oids: set[bytes], runs: Any, jobs: Any) -> set[int]:
        """Ids of the runs that a session sees otherwise because it has changed these objects.

        :param runs: the tree of runs, in the session; so is ``jobs``.
        """
        with self.lock:
            return self._table.touched(oids, runs, jobs)

    # ------------------------------------------------------------------ keeping current

    def refresh(self) -> None:
        """Take in what was committed since the last call, and tell the listeners."""
        with self.lock:
            changes, lost = [], True
            try:
                self._manager.begin()
                if self._is_due():
                    changes = self._take_in()
                    self._polled = []
                lost = False
            finally:
                if lost:
                    # What was announced and could not be read (the server went away) must be looked for.
                    self._polled = None
                self._has_lost |= lost
                self._manager.abort()
            counted, self._has_lost = self._has_lost, False
            self.losses += counted
            # A loss is told together with the changes that the same look has found.
            if changes or counted:
                for listener in list(self.listeners):
                    listener(changes)

    def rescan(self) -> None:
        """Compare every run with the database; listeners hear of what the announcements missed."""
        with self.lock:
            self._connection.cacheMinimize()
            self.refresh()  # of what was announced, it is known which runs it changed
            self._polled = None
            self.refresh()

    def _poll_and_keep(self) -> list[bytes] | None:
        oids: list[bytes] | None = self._poll()
        self._has_lost |= oids is None
        if oids is None or self._polled is None:
            self._polled = None
        else:
            self._polled = [*self._polled, *oids]
        return oids

    def _is_due(self) -> bool:
        # A table that was filled from the file may be ahead of the announcements. Until they have come that
        # far, what they name is in it already, and reading that as of then would set it back.
        return self._polled is None or (self._polled != [] and self._storage._start >= self._table.end)

    def _take_in(self) -> list[RunChange]:
        self.version += 1
        before = None if self._polled is None else self._updated(set(self._polled))
        if before is None:
            old, self._table = self._table, self._filled()
            before = {i: old.rows.value(i, "state") for i in self._table.differing(old)}
            if self.snapshot != (self._log[-1][0] if self._log else self._log_start):
                # A run that looks as before may have looked otherwise in between: no session that began then
                # can rely on the table.
                self._log.clear()
                self._log_start = self.snapshot
        if len(self._log) == self._log.maxlen:
            self._log_start = self._log[0][0]
        self._log.append((self.snapshot, frozenset(before)))
        return [
            RunChange(run_id=i, before=before[i], after=self.rows.value(i, "state")) for i in sorted(before)
        ]

    def _updated(self, oids: set[bytes]) -> States | None:
        """Read what has changed; None: the table is to be filled anew."""
        file = self._study.db.storage.file
        records = file and file.records(self._storage._start)
        if records is not None:
            try:
                return self._table.update(oids, records)
            except (Unexpected, OSError) as error:
                logger.debug("%s is read anew: %s", self._study.server.data, error)
                return None
        return self._table.update(oids)

    def _filled(self) -> RunTable:
        if self._study.server.is_local:
            try:
                return self._filled_from_file()
            except (Unexpected, OSError) as error:
                logger.debug("%s is read through its server: %s", self._study.server.data, error)
        table = RunTable(self._connection)
        table.fill()
        return table

    def _filled_from_file(self) -> RunTable:
        records = self._study.latest_records()
        table = RunTable(self._connection)
        with self._as_of(records.before) as through_zodb:
            table.fill_from(records, self._study.config.name, through_zodb)
        table.end = records.before
        self._study.read_locally(table.end)
        return table

    @contextlib.contextmanager
    def _as_of(self, end: bytes) -> Iterator[Callable[[bytes], Any]]:
        """Objects as they were before a transaction, from a connection that is opened when there is need."""
        opened: list[Any] = []

        def get(oid: bytes) -> Any:
            if not opened:
                storage = self._study.db.storage
                if p64(u64(storage.lastTransaction()) + 1) < end:
                    storage.catch_up()  # the file is ahead of what the server has told
                try:
                    opened.append(self._study.db.open(transaction.TransactionManager(), before=end))
                except ValueError as error:  # it is in the future: the file is not the server's
                    raise Unexpected(str(error)) from error
            return opened[0].get(oid)

        try:
            yield get
        finally:
            for connection in opened:
                connection.close()

    # ------------------------------------------------------------------ announcements

    def on_announcement(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, from the network thread, when something was committed; answer the undoing."""
        self._announcing = [*self._announcing, callback]

        def undo() -> None:
            self._announcing = [other for other in self._announcing if other is not callback]

        return undo

    def _hook(self) -> None:
        storage = self._storage
        invalidate, invalidate_cache = storage._invalidate, storage._invalidateCache

        def announced(tid: bytes, oids: Any) -> None:
            invalidate(tid, oids)
            self._announce()

        def lost() -> None:
            invalidate_cache()
            self._announce()

        storage._invalidate, storage._invalidateCache = announced, lost
        storage.poll_invalidations = self._poll_and_keep

    def _announce(self) -> None:
        for callback in self._announcing:
            callback()

    def close(self) -> None:
        """Give the connection back as it was; a thread that waits for a paused server is interrupted."""
        if not self.lock.acquire(timeout=_PATIENCE_S):
            self._study.hang_up()
            self.lock.acquire()
        try:
            self._polled = []  # who looks from now on finds nothing
            storage = self._storage
            del storage.poll_invalidations, storage._invalidate, storage._invalidateCache
            self._connection.close()
        finally:
            self.lock.release()
