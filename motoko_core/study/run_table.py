"""What the index knows of a study's runs and jobs at one moment, and how it reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from BlackDynamite.job import JobZEO
from BlackDynamite.run_zeo import RunZEO
from BTrees.LLBTree import LLBTree, LLTreeSet
from ZODB.utils import p64, u64

from motoko_core.study.layout import trees_of
from motoko_core.study.plain_objects import (
    JOB,
    RUN,
    Records,
    Reference,
    Unexpected,
    plain_record,
    tree_state,
)
from motoko_core.study.rows import Rows, Stored
from motoko_core.study.tree_keys import TreeKeys
from motoko_core.study.values import attributes_of, prefetch

if TYPE_CHECKING:
    from ZODB.Connection import Connection

_PREFETCH = 500
#: Room for the run ids of one job.
_RUNS = 2**31

#: Run id -> the run's state, None if it was not there.
States = Mapping[int, "str | None"]


class RunTable:
    """The values of all runs and of their jobs, with sets of runs by run_name and state.

    :param connection: whose objects are read, by :meth:`fill` and :meth:`update` only.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: The id after the last transaction that is in it, if that is more than the connection sees.
        self.end = b""
        self.rows, self.jobs = Rows(), Rows()
        self.groups: dict[tuple[Any, Any], set[int]] = {}
        #: Runs whose job was deleted: no selection gives them.
        self.jobless: set[int] = set()
        self._run_keys, self._job_keys = TreeKeys(), TreeKeys()
        # A run or a job consists of several database objects; their ids, as integers, lead to it.
        self._run_of, self._job_of = LLBTree(), LLBTree()
        #: job id * _RUNS + run id
        self._runs_of_job = LLTreeSet()
        self._plain: _PlainReader | None = None

    # ------------------------------------------------------------------ looking up

    def runs_of(self, oid: bytes) -> set[int]:
        """The runs that an object belongs to, as a part of the run or of its job."""
        object_id = u64(oid)
        run_id = self._run_of.get(object_id)
        if run_id is not None:
            return {run_id}
        job_id = self._job_of.get(object_id)
        return set() if job_id is None else self.runs_of_jobs((job_id,))

    def runs_of_jobs(self, job_ids: Iterable[int]) -> set[int]:
        """The runs that refer to one of these jobs."""
        keys = self._runs_of_job
        return {key % _RUNS for i in job_ids for key in keys.keys(i * _RUNS, (i + 1) * _RUNS, False, True)}

    def differing(self, other: RunTable) -> set[int]:
        """The runs that look different in another table."""
        jobs = self.jobs.differing(other.jobs)
        return (
            self.rows.differing(other.rows)
            | (self.runs_of_jobs(jobs) & other.runs_of_jobs(jobs))
            | (self.jobless ^ other.jobless)
        )

    def touched(self, oids: set[bytes], runs: Any, jobs: Any) -> set[int]:
        """The runs that a session sees otherwise because it has changed these objects.

        :param runs: the tree of runs, in the session; so is ``jobs``.
        """
        found = self._run_keys.differing(runs, oids, self.rows)
        found |= self.runs_of_jobs(self._job_keys.differing(jobs, oids, self.jobs))
        return found.union(*map(self.runs_of, oids))

    # ------------------------------------------------------------------ reading

    def fill_from(self, file: Records, study: str, through_zodb: Callable[[bytes], Any]) -> None:
        """Read everything into an empty table without ZODB, which is ten times as fast.

        :param study: ``study:`` of bd.yaml.
        :param through_zodb: answers an object by its id, for those that are not as usual.
        :raises Unexpected: something in the file is not as usual. The table is to be thrown away.
        """
        runs, jobs = trees_of(file, study)
        reader = _PlainReader(file)
        places = {
            job_id: job for job_id, job in reader.references(jobs, self._job_keys) if isinstance(job_id, int)
        }

        def read(place: Reference, key: int, rows: Rows, usual: type[Any]) -> Stored:
            return self._read_plainly(reader, place, key, rows, usual, through_zodb)

        for run_id, run in reader.references(runs, self._run_keys):
            found = read(run, run_id, self.rows, RunZEO)
            job_id = self.rows.value_in(found, "job_id")
            if job_id in places and job_id not in self.jobs:
                self.jobs.put(job_id, read(places[job_id], job_id, self.jobs, JobZEO))
            self._enter_runs({run_id: found})

    def fill(self) -> None:
        """Read everything into an empty table."""
        runs, jobs = self._trees()
        self._job_keys.fill(jobs)
        run_ids = self._run_keys.fill(runs)
        for begin in range(0, len(run_ids), _PREFETCH):
            found = self._load(runs, run_ids[begin : begin + _PREFETCH], self.rows, RunZEO)
            self._enter_jobs(self._load_jobs_of(found, jobs))
            self._enter_runs(found)
            self._connection.cacheGC()

    def update(self, oids: set[bytes], records: Records | None = None) -> States:
        """Read what has changed. If that fails, the table is to be thrown away, and is what it was.

        :param oids: of the database objects that changed.
        :param records: where runs and jobs can be read without ZODB, as the connection sees them.
        :returns: the runs that may look different now, with their states before.
        :raises Unexpected: ``records`` has something in it that is not as usual.
        """
        self._plain = None if records is None else _PlainReader(records)
        runs, jobs = self._trees()
        object_ids = list(map(u64, oids))
        job_ids = self._job_keys.moved(jobs, oids, self.jobs)
        job_ids.update(i for object_id in object_ids if (i := self._job_of.get(object_id)) is not None)
        used = [i for i in job_ids if i in self.jobs or self.runs_of_jobs((i,))]
        found_jobs = self._load(jobs, used, self.jobs, JobZEO)
        touched = self.runs_of_jobs(i for i, job in found_jobs.items() if self.jobs.is_other(i, job))
        touched |= self._run_keys.moved(runs, oids, self.rows)
        touched.update(i for object_id in object_ids if (i := self._run_of.get(object_id)) is not None)
        found = self._load(runs, touched, self.rows, RunZEO)
        found_jobs = {**self._load_jobs_of(found, jobs), **found_jobs}
        # From here on nothing is read any more, so nothing can fail halfway.
        before = {i: self.rows.value(i, "state") for i in touched}
        self._enter_jobs(found_jobs)
        self._enter_runs(found)
        return before

    def _trees(self) -> tuple[Any, Any]:
        base = self._connection.motoko_base
        return base._get_runs().entries, base._get_jobs().entries

    def _load(self, tree: Any, keys: Iterable[int], rows: Rows, usual: type[Any]) -> dict[int, Stored | None]:
        """Read runs or jobs; None for one that is not there."""
        if self._plain is not None:
            return {key: self._read_present(self._plain, tree.get(key), key, rows, usual) for key in keys}
        todo = sorted(keys)
        loaded: dict[int, Stored | None] = {}
        for begin in range(0, len(todo), _PREFETCH):
            found = {key: tree.get(key) for key in todo[begin : begin + _PREFETCH]}
            present = [obj for obj in found.values() if obj is not None]
            prefetch(self._connection, present, "entries")
            for key, obj in found.items():
                loaded[key] = None if obj is None else self._read(obj, key, rows, usual)
            if len(todo) > _PREFETCH:
                self._connection.cacheGC()
        return loaded

    def _read(self, obj: Any, key: int, rows: Rows, usual: type[Any]) -> Stored:
        # It does no harm to know the objects of a run before the run: they find that it is not there.
        owner = self._run_of if usual is RunZEO else self._job_of
        owner.update([(object_id, key) for object_id in _parts(obj)])
        # An object of the usual class can be had from a connection without reading the tree.
        return rows.pack(obj._p_oid if type(obj) is usual else None, obj.entries.items(), attributes_of(obj))

    def _read_present(
        self, reader: _PlainReader, obj: Any, key: int, rows: Rows, usual: type[Any]
    ) -> Stored | None:
        if obj is None:
            return None
        return self._read_plainly(reader, Reference(u64(obj._p_oid)), key, rows, usual, self._connection.get)

    def _read_plainly(
        self,
        reader: _PlainReader,
        place: Reference,
        key: int,
        rows: Rows,
        usual: type[Any],
        through_zodb: Callable[[bytes], Any],
    ) -> Stored:
        kind, owner = (RUN, self._run_of) if usual is RunZEO else (JOB, self._job_of)
        try:
            return reader.read(place, key, kind, rows, owner)
        except Unexpected:
            return self._read(through_zodb(p64(place.oid)), key, rows, usual)

    def _load_jobs_of(self, runs: Mapping[int, Stored | None], jobs: Any) -> dict[int, Stored | None]:
        """Read those jobs of some runs that are not in the table."""
        job_ids = {self.rows.value_in(run, "job_id") for run in runs.values() if run is not None}
        new = [i for i in job_ids if isinstance(i, int) and i not in self.jobs]
        return self._load(jobs, new, self.jobs, JobZEO)

    def _enter_jobs(self, jobs: Mapping[int, Stored | None]) -> None:
        for job_id, job in jobs.items():
            if job is None:
                self.jobs.drop(job_id)
            else:
                self.jobs.put(job_id, job)

    def _enter_runs(self, runs: Mapping[int, Stored | None]) -> None:
        for run_id, run in runs.items():
            self._leave_groups(run_id)
            if run is None:
                self.rows.drop(run_id)
            else:
                self.rows.put(run_id, run)
                self._join_groups(run_id)

    def _leave_groups(self, run_id: int) -> None:
        self.jobless.discard(run_id)
        if run_id not in self.rows:
            return
        group, job_id = self._group(run_id), self.rows.value(run_id, "job_id")
        self.groups[group].discard(run_id)
        if not self.groups[group]:
            del self.groups[group]
        if isinstance(job_id, int):
            self._runs_of_job.discard(job_id * _RUNS + run_id)

    def _join_groups(self, run_id: int) -> None:
        self.groups.setdefault(self._group(run_id), set()).add(run_id)
        job_id = self.rows.value(run_id, "job_id")
        if isinstance(job_id, int):
            self._runs_of_job.add(job_id * _RUNS + run_id)
        if job_id not in self.jobs:
            self.jobless.add(run_id)

    def _group(self, run_id: int) -> tuple[Any, Any]:
        return self.rows.value(run_id, "run_name"), self.rows.value(run_id, "state")


class _PlainReader:
    """Reads runs and jobs without ZODB as :meth:`RunTable._load` does from a connection."""

    def __init__(self, file: Records) -> None:
        self._file = file

    def references(self, tree: Reference, keys: TreeKeys) -> Iterator[tuple[int, Reference]]:
        """(id, place) of the records in a tree; its buckets are noted."""
        for oid, ids, places in self._file.buckets(tree):
            if oid is not None:
                keys.note(p64(oid))
            yield from zip(ids, places, strict=True)

    def read(self, place: Reference, key: int, usual: Any, rows: Rows, owner: LLBTree) -> Stored:
        record = plain_record(self._file.stored(place.oid)[0])
        owner[place.oid] = key
        oid = p64(place.oid) if record.kind == usual else None
        attributes, entries = record.attributes, record.entries
        if type(entries) is not Reference:
            return rows.pack(oid, dict(entries or {}).items(), attributes.items())
        owner[entries.oid] = key
        try:
            tree = tree_state(self._file.stored(entries.oid)[0])
        except Unexpected:
            tree = None
        if not attributes and tree is not None and len(tree) == 1:  # nearly always: all of them in one object
            (bucket,) = tree[0][0]
            return rows.pack_entries(oid, bucket[::2], bucket[1::2])
        values: list[tuple[str, Any]] = []
        for bucket_oid, names, of_names in self._file.buckets(entries):
            if bucket_oid is not None:
                owner[bucket_oid] = key
            values += zip(names, of_names, strict=True)
        return rows.pack(oid, values, attributes.items())


def _parts(obj: Any) -> Iterator[int]:
    """The ids of the database objects that a run or a job consists of."""
    yield u64(obj._p_oid)
    if not hasattr(obj.entries, "_p_oid"):  # BlackDynamite's own are dictionaries
        return
    yield u64(obj.entries._p_oid)
    bucket: Any = obj.entries._firstbucket if obj.entries else None
    while bucket is not None and bucket._p_oid is not None:
        yield u64(bucket._p_oid)
        bucket = bucket._next
