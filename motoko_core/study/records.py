"""Creating jobs and runs in bulk, each only once.

A job is known by its parameters, a run by its job and its own parameters. Motoko keeps an index of the
digests of these beside BlackDynamite's trees; records that BlackDynamite's tools have created are taken
into it when the next task is created. (BlackDynamite compares with every stored run instead.)
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

from motoko_core.config import StudyConfig, require_study_files
from motoko_core.errors import TaskError, nearest
from motoko_core.states import CREATED
from motoko_core.study import blackdynamite as bd

#: Entries of a run that say how it was made or how far it is; they do not tell runs apart.
_BOOKKEEPING = frozenset(
    {
        *("id", "state", "start_time", "last_step", "last_step_time", "run_path", "exec", "event_name"),
        *("workflow", "blackdynamite_version", "python_requirements", "failure", "handle", "not_before"),
    }
)
_REFUSED = ("id", "job_id", "state")

# ------------------------------------------------------------------ values


def convert(value: Any, wanted: type | None, name: str) -> Any:
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
        f"the parameter {name!r} is declared as {wanted.__name__}, but was given {value!r} "
        f"({type(value).__name__})",
        hint="Give a value of that type, or change its declaration in bd.yaml (and create the study anew).",
    )


def _span(name: str, value: Any, wanted: type) -> Iterable[Any]:
    """The values that a job parameter takes: a list spans the space, unless the parameter is one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    several = wanted is not list and isinstance(value, (list, tuple, range))
    return [convert(item, wanted, name) for item in (value if several else [value])]


def expand(parameters: Mapping[str, Any], types: Mapping[str, type], *, study: str) -> list[dict[str, Any]]:
    """Expand job parameters into the points of the space that they span, in the order of BlackDynamite.

    :raises TaskError: a parameter is not declared, or a value is of the wrong type.
    """
    axes: dict[str, Iterable[Any]] = {}
    for name, value in parameters.items():
        key = name.lower()
        if key not in types:
            raise TaskError(
                f"the study {study!r} has no job parameter {name!r}",
                hint=nearest(name, types) + " They are declared under `job:` in bd.yaml.",
            )
        axes[key] = _span(name, value, types[key])
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


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
        entries[name.lower()] = convert(value, known.get(name.lower()), name)
    return entries


def _canonical(value: Any) -> str:
    """A text that is the same for equal values, whatever their number type or the order of their keys."""
    if isinstance(value, Mapping):
        items = sorted((_canonical(k), _canonical(v)) for k, v in value.items())
        return "{" + ",".join(f"{k}:{v}" for k, v in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value)


def _digest(entries: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(_canonical(entries).encode()).digest()[:16]


def _job_digest(entries: Mapping[str, Any]) -> bytes:
    return _digest({k: v for k, v in entries.items() if k != "id"})


def _run_digest(entries: Mapping[str, Any]) -> bytes:
    return _digest({k: v for k, v in entries.items() if k not in _BOOKKEEPING})


# ------------------------------------------------------------------ files


class StudyFiles:
    """launch.sh, doIt.py and the other configuration files, as BlackDynamite stores them with a run."""

    def __init__(self, config: StudyConfig) -> None:
        require_study_files(config)
        paths = [config.directory / name for name in ("launch.sh", "doIt.py", *config.config_files)]
        self.files = [
            bd.new_file(path.name, path.read_text(encoding="utf-8", errors="surrogateescape"))
            for path in paths
        ]

    @property
    def exec_id(self) -> str:
        return str(self.files[0].id)

    def store(self, base: bd.StudyBase) -> list[str]:
        """Write those that the study does not have yet; answer all their ids."""
        stored = base.configfiles
        for file in self.files:
            if file.id not in stored:
                stored[file.id] = file
        return [str(file.id) for file in self.files]


# ------------------------------------------------------------------ records


class _Records:
    """One kind of record in a study's tree, with its identity index.

    :param kind: ``jobs`` or ``runs``.
    """

    def __init__(self, base: bd.StudyBase, kind: str, digest: Callable[[Mapping[str, Any]], bytes]) -> None:
        self._tree = base.data.entries
        self._kind = kind
        self._digest = digest
        self.records = self._tree[kind].entries
        if f"motoko_{kind}" not in self._tree:
            self._tree[f"motoko_{kind}"] = OOBTree()
            self._tree[f"motoko_{kind}_seen"] = 0
        self._known = self._tree[f"motoko_{kind}"]
        self._adopt()

    def _adopt(self) -> None:
        """Take in what others have created since."""
        seen, counter = self._tree[f"motoko_{self._kind}_seen"], self._tree[f"{self._kind}_counter"]
        if seen + 1 == counter:
            return
        for record_id, record in self.records.items(seen + 1):
            digest = self._digest(dict(record.entries))
            if self._known.get(digest) not in self.records:  # the one that was known may be deleted
                self._known[digest] = record_id
        self._tree[f"motoko_{self._kind}_seen"] = counter - 1

    def find(self, entries: Mapping[str, Any]) -> Any:
        """The record with the same identity, or None."""
        record_id = self._known.get(self._digest(entries))
        return None if record_id is None else self.records.get(record_id)

    def add(self, entries: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> Any:
        """Store a new record under the next id."""
        digest = self._digest(entries)
        record_id = self._tree[f"{self._kind}_counter"]
        self._tree[f"{self._kind}_counter"] = record_id + 1
        self._tree[f"motoko_{self._kind}_seen"] = record_id
        record = make({**entries, "id": record_id})
        self.records[record_id] = record
        self._known[digest] = record_id
        return record


def create(
    base: bd.StudyBase,
    points: Sequence[Mapping[str, Any]],
    run_parameters: Mapping[str, Any],
    files: StudyFiles,
) -> list[tuple[Any, Any]]:
    """Create a run at each point of the parameter space, or find the one that is there already.

    :param points: job entries, from :func:`expand`.
    :param run_parameters: entries of every run, from :func:`run_entries`, with ``run_name``.
    :returns: the (run, job) pairs in the order of ``points``.
    """
    jobs = _Records(base, "jobs", _job_digest)
    runs = _Records(base, "runs", _run_digest)
    data = base.data
    job_types, run_types = data["job_desc"].types, data["run_desc"].types
    fresh = {"state": CREATED, "last_step": None, "last_step_time": None, "start_time": None}
    fresh["exec"] = files.exec_id
    file_ids: list[str] | None = None
    pairs = []
    for point in points:
        job = jobs.find(point)
        if job is None:
            job = jobs.add(dict(point), partial(bd.new_job, types=job_types))
            _enter_in_blackdynamites_index(data["jobsindex"], job, job_types.entries)
        entries = {**run_parameters, "job_id": job.entries["id"]}
        run = runs.find(entries)
        if run is None:
            if file_ids is None:
                file_ids = files.store(base)
            run = runs.add({**fresh, **entries}, partial(bd.new_run, types=run_types, files=file_ids))
            _attach(job, run)
        pairs.append((run, job))
    return pairs


def _enter_in_blackdynamites_index(index: Any, job: Any, names: Iterable[str]) -> None:
    # Its keys are tuples of values without their names: one job that lacks a parameter, or has None for it,
    # and Python cannot order them any more, so that every later look-up of BlackDynamite's fails.
    if any(job.entries.get(name) is None for name in names if name != "id"):
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
