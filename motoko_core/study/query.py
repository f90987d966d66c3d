"""Finding the runs that meet a constraint, as the current session sees them.

Candidates come from the index; what the index cannot know of a session's snapshot (what others committed
since it began, and what the session itself has changed) is added, and then every candidate is checked on
the session's own objects. So a session reads its own writes and sees one consistent snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from motoko_core.session import current_session
from motoko_core.study.index import RunIndex, Unknown, getter

if TYPE_CHECKING:
    from ZODB.Connection import Connection

    from motoko_core.study.constraints import Constraint
    from motoko_core.study.database import StudyDatabase

_PREFETCH = 500


def find(study: StudyDatabase, constraint: Constraint, run_name: str | None) -> list[tuple[Any, Any]]:
    """The (run, job) pairs that meet ``constraint``, by id; only those of ``run_name`` if it is given."""
    connection = current_session().connection(study)
    base = study.base_on(connection)
    runs, jobs = base._get_runs().entries, base._get_jobs().entries
    index = study.index
    index.refresh()
    sure = _candidates(index, constraint, run_name)
    # (A savepoint puts a storage of its own in front of the normal one.)
    unsure = {*index.changed_since(connection._normal_storage._start), *_touched(index, connection)}
    unsure.update(runs.keys(index.highest + 1))  # made in this session, or not known to the index yet
    found: list[tuple[Any, Any]] = []
    ids = sorted(sure | unsure)
    for begin in range(0, len(ids), _PREFETCH):
        chunk = [run for run in map(runs.get, ids[begin : begin + _PREFETCH]) if run is not None]
        _prefetch(connection, chunk)
        _prefetch(connection, [run.entries for run in chunk])
        for run in chunk:
            entries = run.entries
            if run_name is not None and entries.get("run_name") != run_name:
                continue
            job = jobs.get(entries["job_id"])
            if job is not None and constraint.matches(getter(run), getter(job)):
                found.append((run, job))
    return found


def _candidates(index: RunIndex, constraint: Constraint, run_name: str | None) -> set[int]:
    ids = constraint.required("runs", "id")
    names = constraint.required("runs", "run_name")
    if run_name is not None:
        names = frozenset({run_name}) if names is None else names & {run_name}
    if ids is not None:
        return {i for i in ids if i in index.rows}
    candidates = index.candidates(names, constraint.required("runs", "state"))
    if constraint.entries() <= {("runs", "state"), ("runs", "run_name")}:
        return candidates
    return {i for i in candidates if _may_match(index, constraint, i)}


def _may_match(index: RunIndex, constraint: Constraint, run_id: int) -> bool:
    try:
        return constraint.matches(*index.row_getters(run_id))
    except (Unknown, KeyError):
        return True


def _touched(index: RunIndex, connection: Connection) -> set[int]:
    """Ids of the runs that the session has changed."""
    oids = [obj._p_oid for obj in connection._registered_objects]
    if connection._savepoint_storage is not None:
        oids += connection._savepoint_storage.index
    touched: set[int] = set()
    for oid in oids:
        touched |= index.runs_of(oid)
    return touched


def _prefetch(connection: Connection, objects: list[Any]) -> None:
    ghosts = [obj for obj in objects if obj._p_changed is None and obj._p_jar is not None]
    if len(ghosts) > 1:
        connection.prefetch(ghosts)


def is_behind(study: StudyDatabase) -> bool:
    """Whether the current session sees an older state of a study than its index does."""
    start: bytes = current_session().connection(study)._storage._start
    return start < study.index.snapshot
