"""The in-memory table of a study's runs, kept current from what the ZEO server announces.

It is filled once and then only touched for runs that changed. It is a hint: whoever needs certainty
checks the runs that it names on objects of his own session.
"""

from __future__ import annotations

import datetime
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import transaction
from ZODB.POSException import POSKeyError

from motoko_core.interfaces import RunChange

if TYPE_CHECKING:
    from motoko_core.study.database import StudyDatabase

Listener = Callable[[Sequence[RunChange]], None]

_SCALARS = (str, int, float, bool, complex, type(None), datetime.datetime)
#: What ``RunZEO`` keeps in its instance dictionary beside the attributes that scripts set.
_OWN_ATTRIBUTES = frozenset(
    {"entries", "key_string", "optional", "types", "operators", "configfiles", "quantities", "runs"}
)
#: A change log entry is about 100 bytes; a session that is older than the log checks every run.
_LOG_LENGTH = 5_000
_PREFETCH = 500
#: Objects that the index's own connection keeps: the tree of runs, mostly.
_CACHED_OBJECTS = 5_000


def values_of(obj: Any) -> Iterator[tuple[str, Any]]:
    """All values of a run or a job: its entries, and the attributes that scripts have set on it."""
    obj._p_activate()  # reading __dict__ does not load a ghost
    for name, value in obj.__dict__.items():
        if name not in _OWN_ATTRIBUTES and not name.startswith("_"):
            yield name.lower(), value
    yield from obj.entries.items()


def getter(obj: Any) -> Callable[[str], Any]:
    """Look up a value by its name as constraints do; KeyError if the object lacks it."""
    obj._p_activate()  # reading __dict__ does not load a ghost
    entries, attributes = obj.entries, obj.__dict__

    def get(name: str) -> Any:
        try:
            return entries[name]
        except KeyError:
            if name in _OWN_ATTRIBUTES:
                raise
            return attributes[name]

    return get


class Unknown(Exception):
    """A row does not hold this value, because it is not a scalar."""


class RunIndex:
    """Run id -> scalar values, with sets by run_name and state. All methods may be called from any thread."""

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        self._lock = threading.RLock()
        self._manager = transaction.TransactionManager(explicit=True)
        self._connection = study.open(self._manager)
        self._connection._cache.cache_size = _CACHED_OBJECTS
        self._storage = self._connection._storage
        self._poll = self._storage.poll_invalidations
        self._polled: list[bytes] | None = []
        self._announcing: list[Callable[[], None]] = []
        self._hook()
        self.rows: dict[Any, dict[str, Any]] = {}
        self.jobs: dict[Any, dict[str, Any]] = {}
        #: The highest id that was ever seen: a run beyond it is not in the table yet.
        self.highest = 0
        self._groups: dict[tuple[Any, Any], set[int]] = {}
        self._run_of: dict[bytes, int] = {}
        self._job_of: dict[bytes, Any] = {}
        self._oids: dict[int, tuple[bytes, ...]] = {}
        self._buckets: dict[bytes, set[int]] = {}
        self._log: deque[tuple[bytes, frozenset[int]]] = deque(maxlen=_LOG_LENGTH)
        self._log_start = b""
        self.listeners: list[Listener] = []
        try:
            self._manager.begin()
            self._rescan()
            self._polled = []
            self._manager.abort()
        except BaseException:
            self._manager.abort()
            self.close()
            raise
        self._log_start = self._storage._start

    # ------------------------------------------------------------------ reading

    @property
    def snapshot(self) -> bytes:
        """The end of what was taken in: transactions before it are."""
        return self._storage._start  # type: ignore[no-any-return]

    def states(self, run_name: str | None) -> dict[str | None, int]:
        """Number of runs by state, of one run_name or of all."""
        counts: dict[str | None, int] = {}
        with self._lock:
            for (name, state), ids in self._groups.items():
                if ids and run_name in (None, name):
                    counts[state] = counts.get(state, 0) + len(ids)
        return counts

    def candidates(
        self, run_names: frozenset[Any] | None = None, states: frozenset[Any] | None = None
    ) -> set[int]:
        """Ids of the runs with one of these names and states; None: any."""
        with self._lock:
            if run_names is None and states is None:
                return set(self.rows)
            found: set[int] = set()
            for (name, state), ids in self._groups.items():
                if (run_names is None or name in run_names) and (states is None or state in states):
                    found |= ids
            return found

    def row_getters(self, run_id: int) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
        """Look-ups for a run's and its job's values; they raise :class:`Unknown` for what is not scalar."""
        row = self.rows[run_id]
        return _strict(row), _strict(self.jobs.get(row.get("job_id", 0), {}))

    def changed_since(self, start: bytes) -> Iterable[int]:
        """Ids of the runs that may look different in a snapshot that began at ``start``."""
        with self._lock:
            # ZEO tells its readers one after the other: for a moment the session can be ahead.
            if start < self._log_start or start > self._storage._start:
                return set(self.rows)
            changed: set[int] = set()
            for end, ids in reversed(self._log):
                if end <= start:
                    break
                changed |= ids
            return changed

    # ------------------------------------------------------------------ keeping current

    def refresh(self) -> None:
        """Take in what was committed since the last call, and tell the listeners."""
        with self._lock:
            changes, lost = [], True
            try:
                self._manager.begin()
                if self._polled != []:
                    changes = self._take_in()
                lost = False
            finally:
                # What was announced and could not be read (the server went away) must be looked for.
                self._polled = None if lost else []
                self._manager.abort()
            for listener in list(self.listeners):
                if changes:
                    listener(changes)

    def rescan(self) -> None:
        """Compare every run with the database; listeners hear of what the announcements missed."""
        with self._lock:
            self._connection.cacheMinimize()
            self._polled = None
            self.refresh()

    def _poll_and_keep(self) -> list[bytes] | None:
        oids: list[bytes] | None = self._poll()
        if oids is None or self._polled is None:
            self._polled = None
        else:
            self._polled = [*self._polled, *oids]
        return oids

    def _take_in(self) -> list[RunChange]:
        if self._polled is None:
            before, jobs = self.rows, self.jobs
            try:
                self._rescan()
            except BaseException:
                self.rows, self.jobs = before, jobs
                raise
            touched = {i for i in before.keys() | self.rows.keys() if before.get(i) != self.rows.get(i)}
            touched |= self._runs_of_jobs({i for i, row in self.jobs.items() if jobs.get(i, row) != row})
            changes = [_change(i, before.get(i), self.rows.get(i)) for i in sorted(touched)]
        else:
            oids = set(self._polled)
            tree = self._tree()
            touched = {self._run_of[oid] for oid in oids if oid in self._run_of}
            touched |= self._moved(tree, oids)
            job_ids = {self._job_of[oid] for oid in oids & self._job_of.keys()}
            touched |= self._runs_of_jobs(self._read_jobs(job_ids))
            olds = {i: self.rows.get(i) for i in touched}
            self._read(tree, touched)
            changes = [_change(i, olds[i], self.rows.get(i)) for i in sorted(touched)]
        if len(self._log) == self._log.maxlen:
            self._log_start = self._log[0][0]
        self._log.append((self._storage._start, frozenset(touched)))
        return changes

    def _tree(self) -> Any:
        return self._study.base_on(self._connection)._get_runs().entries

    def _rescan(self) -> None:
        self.rows, self.jobs, self._groups, self._run_of, self._oids = {}, {}, {}, {}, {}
        self._buckets, self._job_of = {}, {}
        tree = self._tree()
        self._chain(tree)
        self._read(tree, list(tree.keys()))
        self._connection.cacheGC()

    def _chain(self, tree: Any) -> set[int]:
        """Note every bucket of the tree of runs; answer the ids in them."""
        ids: set[int] = set()
        bucket = tree._firstbucket if len(tree) else None
        if bucket is None or bucket._p_oid is None:  # a small tree keeps its only bucket inside
            self._buckets[tree._p_oid] = ids = set(tree.keys())
            return ids
        self._buckets.pop(tree._p_oid, None)
        while bucket is not None:
            self._buckets[bucket._p_oid] = set(bucket.keys())
            ids |= self._buckets[bucket._p_oid]
            bucket = bucket._next
        return ids

    def _moved(self, tree: Any, oids: set[bytes]) -> set[int]:
        """Ids that came into or went out of the tree of runs, found through its changed buckets."""
        touched: set[int] = set()
        if tree._p_oid in oids and tree._p_oid not in self._buckets and self._is_rebuilt(tree):
            return set(self.rows) ^ self._chain(tree)  # it had lost its last bucket
        for oid in oids & self._buckets.keys():
            old = self._buckets[oid]
            if oid == tree._p_oid:
                touched |= old ^ self._chain(tree)
                continue
            try:
                bucket = self._connection.get(oid)
                now = set(bucket.keys())
                following = bucket._next
            except POSKeyError:
                now, following = set(), None
            self._buckets[oid] = now
            touched |= old ^ now
            while following is not None and following._p_oid not in self._buckets:
                ids = self._buckets[following._p_oid] = set(following.keys())
                touched |= ids
                following = following._next
        # A split moves ids from one bucket to the next: they did not change.
        return {i for i in touched if (i in tree) != (i in self.rows)}

    def _is_rebuilt(self, tree: Any) -> bool:
        first = tree._firstbucket if tree else None
        return first is None or first._p_oid not in self._buckets

    def _read(self, tree: Any, run_ids: Iterable[int]) -> None:
        todo = sorted(run_ids)
        for begin in range(0, len(todo), _PREFETCH):
            runs = {i: tree.get(i) for i in todo[begin : begin + _PREFETCH]}
            present = [run for run in runs.values() if run is not None]
            self._prefetch(present)
            self._prefetch([run.entries for run in present])
            for run_id, run in runs.items():
                self._forget(run_id)
                if run is not None:
                    self._store(run_id, run)
            if len(todo) > _PREFETCH:
                self._connection.cacheGC()

    def _prefetch(self, objects: list[Any]) -> None:
        ghosts = [obj for obj in objects if getattr(obj, "_p_changed", 0) is None]
        if len(ghosts) > 1:
            self._connection.prefetch(ghosts)

    def _forget(self, run_id: int) -> None:
        row = self.rows.pop(run_id, None)
        if row is not None:
            self._groups[row.get("run_name"), row.get("state")].discard(run_id)
        for oid in self._oids.pop(run_id, ()):
            self._run_of.pop(oid, None)

    def _store(self, run_id: int, run: Any) -> None:
        row = _scalars(run)
        self.rows[run_id] = row
        self.highest = max(self.highest, run_id)
        self._groups.setdefault((row.get("run_name"), row.get("state")), set()).add(run_id)
        self._oids[run_id] = _parts(run)
        for oid in self._oids[run_id]:
            self._run_of[oid] = run_id
        job_id = row.get("job_id")
        if job_id is not None and job_id not in self.jobs:
            self._read_jobs({job_id})

    def _read_jobs(self, job_ids: set[Any]) -> set[Any]:
        """Read jobs again; answer those that look different."""
        changed = set()
        for job_id in job_ids:
            job = self._study.base_on(self._connection)._get_jobs().entries.get(job_id)
            if job is None:
                continue
            row = _scalars(job)
            if self.jobs.get(job_id) != row:
                changed.add(job_id)
                self.jobs[job_id] = row
            for oid in _parts(job):
                self._job_of[oid] = job_id
        return changed

    def _runs_of_jobs(self, job_ids: set[Any]) -> set[int]:
        # Parameters of a job hardly ever change, so nothing is kept for this.
        return {i for i, row in self.rows.items() if row.get("job_id") in job_ids} if job_ids else set()

    def runs_of(self, oid: bytes) -> set[int]:
        """The runs that an object belongs to, as a part of the run or of its job."""
        with self._lock:
            if oid in self._run_of:
                return {self._run_of[oid]}
            return self._runs_of_jobs({self._job_of[oid]}) if oid in self._job_of else set()

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
        """Give the connection back as it was."""
        with self._lock:
            storage = self._storage
            del storage.poll_invalidations, storage._invalidate, storage._invalidateCache
            self._connection.close()


def _scalars(obj: Any) -> dict[str, Any]:
    return {name: value for name, value in values_of(obj) if isinstance(value, _SCALARS)}


def _parts(obj: Any) -> tuple[bytes, ...]:
    """The database objects that a run or a job consists of."""
    if not hasattr(obj.entries, "_p_oid"):  # BlackDynamite's own are dictionaries
        return (obj._p_oid,)
    oids = [obj._p_oid, obj.entries._p_oid]
    bucket = obj.entries._firstbucket if len(obj.entries) else None
    while bucket is not None and bucket._p_oid is not None:
        oids.append(bucket._p_oid)
        bucket = bucket._next
    return tuple(oids)


def _change(run_id: int, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> RunChange:
    return RunChange(
        run_id=run_id,
        before=before.get("state") if before else None,
        after=after.get("state") if after else None,
    )


def _strict(row: Mapping[str, Any]) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        try:
            return row[name]
        except KeyError:
            raise Unknown(name) from None

    return get
