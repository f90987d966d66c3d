"""Finding the runs that meet a constraint, as the current session sees them.

The index answers for the runs that look the same in the session's snapshot as in the index, nearly all of
them; the others (what was committed since the session began, what the session itself has changed, and what
the index does not hold) are checked on the session's own objects. So a session reads its own writes and sees
one consistent snapshot, and no run is read from the database that the index can answer for.

Another thread may take new commits into the index at any time: which runs look the same, and what the index
says of the others, are asked for together, under the index's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from BlackDynamite.job import JobZEO
from BlackDynamite.run_zeo import RunZEO

from motoko_core.session import current_session
from motoko_core.study.known import AnsweredNames, Get, Pair, Portion
from motoko_core.study.rows import Unknown
from motoko_core.study.values import getter, prefetch

if TYPE_CHECKING:
    from ZODB.Connection import Connection

    from motoko_core.study.constraint_tree import Kind
    from motoko_core.study.constraints import Constraint
    from motoko_core.study.database import StudyDatabase

_PREFETCH = 500
#: Runs that are read together.
PORTION = 200
#: What the index keeps sets of runs for.
_GROUPED: frozenset[tuple[Kind, str]] = frozenset({("runs", "run_name"), ("runs", "state"), ("runs", "id")})


class Query:
    """A constraint on the runs of one run_name (None: of any), in the current session."""

    def __init__(self, study: StudyDatabase, constraint: Constraint, run_name: str | None) -> None:
        self._constraint = constraint
        self._connection = current_session().connection(study)
        base = study.base_on(self._connection)
        self._runs, self._jobs = base._get_runs().entries, base._get_jobs().entries
        self._index = study.index
        self._ids = constraint.required("runs", "id")
        self._states = constraint.required("runs", "state")
        self._names = constraint.required("runs", "run_name")
        if run_name is not None:
            mine = frozenset({run_name})
            self._names = mine if self._names is None else self._names & mine
        self._unsure: set[int] = set()
        self._version = self._view = -1
        self._config = study.config

    def count(self) -> int:
        """How many runs meet the constraint."""
        self._connection.has_searched = True
        index = self._index
        with index.lock:
            unsure = self._find_unsure()
            if not unsure and self._ids is None and not index.jobless and self._is_grouped():
                return index.count(self._names, self._states)
        return len(self.ids())

    def ids(self) -> list[int]:
        """The ids of the runs that meet the constraint, in order."""
        self._connection.has_searched = True
        with self._index.lock:
            unsure = set(self._find_unsure())
            met = self._candidates()
            met -= unsure
            if not self._is_grouped():
                met = {run_id for run_id in met if self._matches_in_index(run_id, unsure)}
        met.update(self._check(sorted(unsure)))
        return sorted(met)

    def pair(self, run_id: int) -> Pair | None:
        """The run with an id, and its job, not read from the database yet; None if one is not there."""
        with self._index.lock:
            pair = None if run_id in self._find_unsure() else self._pair_in_index(run_id)
        if pair is not None:
            return pair
        run = self._runs.get(run_id)
        job = None if run is None else self._jobs.get(run.entries["job_id"])
        return None if job is None else (run, job)

    def _pair_in_index(self, run_id: int) -> Pair | None:
        rows, jobs = self._index.rows, self._index.jobs
        run, job = rows.oid(run_id), jobs.oid(rows.value(run_id, "job_id"))
        if not (run and job):
            return None
        return _object(self._connection, run, RunZEO), _object(self._connection, job, JobZEO)

    def tasks(self, run_ids: Sequence[int]) -> Iterator[tuple[int, Pair, tuple[Get, Get]]]:
        """Runs and jobs by their ids, with how to ask the index for values of them.

        What it does not know is read when somebody asks for it, together for a portion of the tasks: one by
        one, reading costs twice as much. They are given up when the next are due, or ZODB would keep all of
        them until the commit.
        """
        names = AnsweredNames(self._config)
        for begin in range(0, len(run_ids), PORTION):
            chunk = run_ids[begin : begin + PORTION]
            portion, known = Portion(self._connection, names), self._known(chunk)
            tasks = []
            for run_id in chunk:
                pair, run, job = known.get(run_id) or (self.pair(run_id), None, None)
                if pair is not None:
                    tasks.append((run_id, pair, portion.add(pair, run, job)))
            yield from tasks
            self._connection.cacheGC()

    def _known(self, run_ids: Sequence[int]) -> dict[int, tuple[Pair, Get, Get]]:
        """The runs that look the same in the index, with their jobs, and how to look up values of both."""
        index = self._index
        found = {}
        with index.lock:
            unsure = self._find_unsure()
            if self._view != self._connection.view:
                return {}
            for run_id in run_ids:
                pair = None if run_id in unsure else self._pair_in_index(run_id)
                if pair is not None:
                    job_id = index.rows.value(run_id, "job_id")
                    found[run_id] = pair, index.rows.entry_getter(run_id), index.jobs.entry_getter(job_id)
        return found

    def matches(self, run_id: int) -> bool:
        """Whether one run meets the constraint."""
        self._connection.told_of.add(run_id)
        unsure: set[int] = set()
        index = self._index
        with index.lock:
            if run_id not in self._find_unsure() and run_id in index.rows:
                named = self._names is None or index.rows.value(run_id, "run_name") in self._names
                met = named and run_id not in index.jobless and self._matches_in_index(run_id, unsure)
                if not unsure:
                    return met
        return any(True for _ in self._check([run_id]))

    # ------------------------------------------------------------------ answered by the index

    def _is_grouped(self) -> bool:
        return self._constraint.is_answered_by(_GROUPED)

    def _candidates(self) -> set[int]:
        index = self._index
        if self._ids is None:
            return index.candidates(self._names, self._states) - index.jobless
        value = index.rows.value
        return {
            run_id
            for run_id in self._ids
            if run_id in index.rows
            and run_id not in index.jobless
            and (self._names is None or value(run_id, "run_name") in self._names)
            and (self._states is None or value(run_id, "state") in self._states)
        }

    def _matches_in_index(self, run_id: int, unsure: set[int]) -> bool:
        rows, jobs = self._index.rows, self._index.jobs
        try:
            job_id = rows.value(run_id, "job_id")
            return self._constraint.matches(rows.getter(run_id), jobs.getter(job_id))
        except Unknown:
            unsure.add(run_id)
            return False

    # ------------------------------------------------------------------ checked on the objects

    def _find_unsure(self) -> set[int]:
        """Ids of the runs that may look different in the session and in the index, as it is now."""
        index, connection = self._index, self._connection
        if self._version == index.version:
            return self._unsure
        # (A savepoint puts a storage of its own in front of the normal one.)
        changed_since = index.changed_since(connection._normal_storage._start)
        # (If it can be any, it can also be one that was deleted since.)
        unsure = {*index.rows, *self._runs.keys()} if changed_since is None else changed_since
        changed = _changed_objects(connection)
        if changed:
            unsure |= index.touched(changed, self._runs, self._jobs)
        unsure.update(self._runs.keys(index.rows.highest + 1))  # made in this session, or not known yet
        self._view = connection.view
        self._unsure, self._version = unsure, index.version  # asking may have brought the index up to date
        return unsure

    def _check(self, ids: list[int]) -> Iterator[int]:
        """Those of some runs that meet the constraint in the session."""
        for begin in range(0, len(ids), _PREFETCH):
            chunk = ids[begin : begin + _PREFETCH]
            runs = {run_id: run for run_id in chunk if (run := self._runs.get(run_id)) is not None}
            prefetch(self._connection, list(runs.values()), "entries")
            for run_id, run in runs.items():
                entries = run.entries
                if self._names is not None and entries.get("run_name") not in self._names:
                    continue
                job = self._jobs.get(entries["job_id"])
                if job is not None and self._constraint.matches(getter(run), getter(job)):
                    yield run_id


def _object(connection: Connection, oid: bytes, usual: Any) -> Any:
    """The object with an id, without reading it or the tree that it is in."""
    obj = connection._cache.get(oid)
    if obj is None:
        obj = usual.__new__(usual)
        connection._cache.new_ghost(oid, obj)
    return obj


def _changed_objects(connection: Connection) -> set[bytes]:
    """Ids of the objects that the session has changed."""
    oids = {obj._p_oid for obj in connection._registered_objects}
    saved = connection._savepoint_storage
    if saved is not None:
        oids.update(saved.index)
        # What the session has made itself is no part of what the index knows, and a server that was started
        # again since may have given the same ids to others.
        oids.difference_update(saved.creating)
    return oids
