"""Creating jobs and runs in bulk, each only once.

A job is known by its parameters, a run by its job and its own parameters. Motoko keeps an index of these
beside BlackDynamite's trees; records that BlackDynamite's tools have created are taken into it when the next
task is created. (BlackDynamite compares with every stored run instead.)

Neighbours in a sweep are neighbours in the index: creating many tasks touches few of its buckets, and those
that are filled can leave the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

from motoko_core.states import CREATED
from motoko_core.study import blackdynamite as bd
from motoko_core.study.identity import identity_in_job, job_identity, run_identity, run_parameters_identity
from motoko_core.study.study_files import StudyFiles

#: Tasks after which what was created leaves the memory, until the commit.
PORTION = 1000


class _Records:
    """One kind of record in a study's tree, with its index of identities.

    :param kind: ``jobs`` or ``runs``.
    """

    def __init__(self, base: bd.StudyBase, kind: str, identity: Callable[[Mapping[str, Any]], bytes]) -> None:
        self._tree = base.data.entries
        self._kind = kind
        self._index, self._seen = f"motoko_{kind}_by_identity", f"motoko_{kind}_taken_in"
        self.records = self._tree[kind].entries
        if self._index not in self._tree:
            self._tree[self._index] = OOBTree()
            self._tree[self._seen] = 0
        self._known = self._tree[self._index]
        self._adopt(identity)

    def _adopt(self, identity: Callable[[Mapping[str, Any]], bytes]) -> None:
        """Take in what others have created since."""
        seen, counter = self._tree[self._seen], self._tree[f"{self._kind}_counter"]
        if seen + 1 == counter:
            return
        for record_id, record in self.records.items(seen + 1):
            key = identity(dict(record.entries))
            if self._known.get(key) not in self.records:  # the one that was known may be deleted
                self._known[key] = record_id
        self._tree[self._seen] = counter - 1

    def find(self, identity: bytes) -> Any:
        """The record with an identity, or None."""
        record_id = self._known.get(identity)
        return None if record_id is None else self.records.get(record_id)

    def add(self, identity: bytes, entries: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> Any:
        """Store a new record under the next id."""
        record_id = self._tree[f"{self._kind}_counter"]
        self._tree[f"{self._kind}_counter"] = record_id + 1
        self._tree[self._seen] = record_id
        entries["id"] = record_id
        record = make(entries)
        self.records[record_id] = record
        self._known[identity] = record_id
        return record


def create(
    base: bd.StudyBase,
    points: Iterable[Mapping[str, Any]],
    run_parameters: Mapping[str, Any],
    files: StudyFiles,
) -> Iterator[list[tuple[Any, Any]]]:
    """Create a run at each point of the parameter space, or find the one that is there already.

    What is created belongs to the transaction of the base's connection, and leaves the memory portion by
    portion.

    :param points: job entries, as :class:`Points` has them.
    :param run_parameters: entries of every run, from :func:`run_entries`, with ``run_name``.
    :returns: the (run, job) pairs in the order of ``points``, in portions of :data:`PORTION`.
    """
    jobs = _Records(base, "jobs", job_identity)
    runs = _Records(base, "runs", run_identity)
    data = base.data
    job_types, run_types = data["job_desc"].types, data["run_desc"].types
    make_job = partial(bd.new_job, types=job_types)
    job_names = [name for name in job_types.entries if name != "id"]
    parameters = run_parameters_identity(run_parameters)
    fresh = {"state": CREATED, "last_step": None, "last_step_time": None, "start_time": None}
    fresh["exec"] = files.exec_id
    make_run: Callable[[dict[str, Any]], Any] | None = None
    portion: list[tuple[Any, Any]] = []
    for point in points:
        identity = job_identity(point)
        job = jobs.find(identity)
        if job is None:
            job = jobs.add(identity, dict(point), make_job)
            _enter_in_blackdynamites_index(data["jobsindex"], job, job_names)
        job_id = job.entries["id"]
        identity = identity_in_job(job_id, parameters)
        run = runs.find(identity)
        if run is None:
            if make_run is None:
                make_run = partial(bd.new_run, types=run_types, files=files.store(base))
            run = runs.add(identity, {**fresh, **run_parameters, "job_id": job_id}, make_run)
            _attach(job, run)
        portion.append((run, job))
        if len(portion) == PORTION:
            yield portion
            portion = []
            base.connection.spill()
    if portion:
        yield portion


def _enter_in_blackdynamites_index(index: Any, job: Any, names: Iterable[str]) -> None:
    # Its keys are tuples of values without their names: one job that lacks a parameter, or has None for it,
    # and Python cannot order them any more, so that every later look-up of BlackDynamite's fails.
    if any(job.entries.get(name) is None for name in names):
        return
    try:
        index[job.get_params()] = job.entries["id"]
    except TypeError:
        return  # a dictionary, or a list of unlike things: BlackDynamite cannot look such a job up at all


def _attach(job: Any, run: Any) -> None:
    job._p_activate()
    if "runs" not in job.__dict__:
        Persistent.__setattr__(job, "runs", bd.new_tree("runs_"))
    job.__dict__["runs"].entries[run.entries["id"]] = run
