"""Creating jobs and runs in bulk, each only once.

A job is known by its parameters, a run by its job and its own parameters. Motoko keeps an index of these
beside BlackDynamite's trees; records that BlackDynamite's tools have created are taken into it when the next
task is created. (BlackDynamite compares with every stored run instead.)

Neighbours in a sweep are neighbours in the index: creating many tasks touches few of its buckets, and those
that are filled can leave the memory.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

from motoko_core.errors import TaskError, nearest
from motoko_core.states import CREATED
from motoko_core.study import blackdynamite as bd
from motoko_core.study.study_files import StudyFiles

#: Entries of a run that say how it was made or how far it is; they do not tell runs apart.
_BOOKKEEPING = frozenset(
    {
        *("id", "state", "start_time", "last_step", "last_step_time", "run_path", "exec", "event_name"),
        *("workflow", "blackdynamite_version", "python_requirements", "failure", "handle", "not_before"),
    }
)
_REFUSED = ("id", "job_id", "state")
#: Bytes of a job's parameters that stand in the index as they are.
_PLAIN_IDENTITY = 64
#: Tasks after which what was created leaves the memory, until the commit.
PORTION = 1000

# ------------------------------------------------------------------ values


def convert(value: Any, wanted: type | None, name: str, *, study: str) -> Any:
    """Check a value against a declared type; numpy's numbers and arrays become Python's.

    :raises TaskError: it is not of that type, and nothing is lost by saying so.
    """
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        value = value.tolist()
    if value is None or wanted is None:
        return copy.deepcopy(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is float and number:
        return float(value)
    if wanted is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if wanted is complex and (number or isinstance(value, complex)):
        return complex(value)
    if wanted is bool and value in (0, 1):
        return bool(value)
    if wanted is list and isinstance(value, (list, tuple)):
        return copy.deepcopy(list(value))
    if wanted is dict and isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    if wanted is datetime.datetime and isinstance(value, datetime.datetime):
        return value
    if wanted is str and isinstance(value, str):
        return str(value)
    raise TaskError(
        f"the parameter {name!r} of study {study!r} is declared as {wanted.__name__}, "
        f"but was given {value!r} ({type(value).__name__})",
        hint="Give a value of that type, or change its declaration in bd.yaml (and create the study anew).",
    )


def _span(name: str, value: Any, wanted: type, *, study: str) -> list[Any]:
    """The values that a job parameter takes: a list spans the space, unless the parameter is one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    several = wanted is not list and isinstance(value, (list, tuple, range))
    return [convert(item, wanted, name, study=study) for item in (value if several else [value])]


class Points(Collection[dict[str, Any]]):
    """The points of the space that job parameters span, in the order of BlackDynamite; made when asked for.

    :raises TaskError: a parameter is not declared, or a value is of the wrong type.
    """

    def __init__(self, parameters: Mapping[str, Any], types: Mapping[str, type], *, study: str) -> None:
        self._axes: dict[str, list[Any]] = {}
        for name, value in parameters.items():
            key = name.lower()
            if key not in types:
                raise TaskError(
                    f"the study {study!r} has no job parameter {name!r}",
                    hint=nearest(name, types) + " They are declared under `job:` in bd.yaml.",
                )
            self._axes[key] = _span(name, value, types[key], study=study)

    def __len__(self) -> int:
        return math.prod(map(len, self._axes.values()))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for point in product(*self._axes.values()):
            yield dict(zip(self._axes, point, strict=True))

    def __contains__(self, point: object) -> bool:
        return any(point == other for other in self)


def run_entries(parameters: Mapping[str, Any], types: Mapping[str, type], *, study: str) -> dict[str, Any]:
    """Check run parameters; those that bd.yaml does not declare are stored as they are."""
    entries: dict[str, Any] = {}
    known = {**bd.RUN_TYPES, **types}
    for name, value in parameters.items():
        if name.lower() in _REFUSED:
            raise TaskError(
                f"the run parameter {name!r} of study {study!r} is not yours to set",
                hint="Motoko sets " + ", ".join(_REFUSED) + ".",
            )
        entries[name.lower()] = convert(value, known.get(name.lower()), name, study=study)
    return entries


def _canonical(value: Any) -> str:
    """A text that is the same for equal values, whatever their number type or the order of their keys."""
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, (bool, int, float)):
        return repr(int(value) if not isinstance(value, float) or value.is_integer() else value)
    if isinstance(value, Mapping):
        items = sorted((_canonical(k), _canonical(v)) for k, v in value.items())
        return "{" + ",".join(f"{k}:{v}" for k, v in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return repr(value)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:16]


def _job_identity(entries: Mapping[str, Any]) -> bytes:
    text = _canonical({k: v for k, v in entries.items() if k != "id"}).encode("utf-8", "surrogatepass")
    # The former are shorter than the latter: they cannot be equal.
    return text if len(text) <= _PLAIN_IDENTITY else text[:_PLAIN_IDENTITY] + _digest(text)


def _run_parameters_identity(entries: Mapping[str, Any]) -> bytes:
    parameters = {k: v for k, v in entries.items() if k not in _BOOKKEEPING and k != "job_id"}
    return _digest(_canonical(parameters).encode("utf-8", "surrogatepass"))


def _identity_in_job(job_id: int, parameters: bytes) -> bytes:
    return job_id.to_bytes(8, "big") + parameters


def _run_identity(entries: Mapping[str, Any]) -> bytes:
    return _identity_in_job(entries["job_id"], _run_parameters_identity(entries))


# ------------------------------------------------------------------ records


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
    jobs = _Records(base, "jobs", _job_identity)
    runs = _Records(base, "runs", _run_identity)
    data = base.data
    job_types, run_types = data["job_desc"].types, data["run_desc"].types
    make_job = partial(bd.new_job, types=job_types)
    job_names = [name for name in job_types.entries if name != "id"]
    parameters = _run_parameters_identity(run_parameters)
    fresh = {"state": CREATED, "last_step": None, "last_step_time": None, "start_time": None}
    fresh["exec"] = files.exec_id
    make_run: Callable[[dict[str, Any]], Any] | None = None
    portion: list[tuple[Any, Any]] = []
    for point in points:
        identity = _job_identity(point)
        job = jobs.find(identity)
        if job is None:
            job = jobs.add(identity, dict(point), make_job)
            _enter_in_blackdynamites_index(data["jobsindex"], job, job_names)
        job_id = job.entries["id"]
        identity = _identity_in_job(job_id, parameters)
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
