"""Runs as rows: job parameters, run entries, and the last value of each quantity."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from motoko_core.entries import CANCEL, FAILURE, HANDLE, NOT_BEFORE
from motoko_core.study.plain_snapshot import record_of
from motoko_core.study.quantities import LastQuantities
from motoko_core.study.values import prefetch

if TYPE_CHECKING:
    import pandas

    from motoko_core.study.constraints import Constraint, Names
    from motoko_core.study.database import StudyDatabase
    from motoko_core.study.record import Snapshot

_FIRST = ("id", "job_id", "run_name", "state")
#: Entries that say how a run was made and executed; they come last.
_BOOKKEEPING = (
    *("event_name", "start_time", "last_step", "last_step_time", FAILURE, "nproc", "machine_name"),
    *(
        "run_path",
        "exec",
        "workflow",
        HANDLE,
        CANCEL,
        NOT_BEFORE,
        "blackdynamite_version",
        "python_requirements",
    ),
)
#: Names of columns that belong to nobody's parameters.
_RESERVED = frozenset({"task"})
_BATCH = 500


@attrs.frozen
class Row:
    """What there is of one task."""

    jobs: Mapping[str, Any]
    runs: Mapping[str, Any]
    quantities: Mapping[str, Any]


@attrs.frozen
class Column:
    """A column of the table of a study.

    :param label: its name; ``jobs.x``, ``runs.x`` or ``quantities.x`` where several have an ``x``.
    :param kind: which part of a :class:`Row` it shows, and ``name`` which value there.
    :param type: what bd.yaml declares; None: nothing.
    :param group: its place among the other columns.
    """

    label: str
    kind: str
    name: str
    type: type | None
    group: int

    @property
    def is_bookkeeping(self) -> bool:
        """Whether it says how a run was made and executed, not what it is about."""
        return self.kind == "runs" and self.name in _BOOKKEEPING

    def of(self, row: Row) -> Any:
        """The value in a row; None if there is none."""
        return getattr(row, self.kind).get(self.name)


class Header:
    """The columns of a study's table: what is declared, and what else a row has a value for.

    :param names: what is declared.
    """

    def __init__(self, names: Names) -> None:
        self._types: dict[str, Mapping[str, type | None]] = {"jobs": names.jobs, "runs": names.runs}
        self._names = {"jobs": dict.fromkeys(names.jobs), "runs": dict.fromkeys(names.runs)}
        self._names["quantities"] = {}

    def take(self, row: Row) -> Row:
        """Take the names of a row in, and give it back."""
        for kind, names in self._names.items():
            values = getattr(row, kind)
            if not values.keys() <= names.keys():
                # BlackDynamite leaves an attribute `t` without a value on what it creates.
                new = (name for name in values.keys() - names.keys() if values[name] is not None)
                names.update(dict.fromkeys(sorted(new)))
        return row

    def columns(self) -> list[Column]:
        """The columns for all rows that were taken in."""
        found = []
        for kind, names in self._names.items():
            for name in names:
                if (kind, name) != ("jobs", "id"):  # that is the run's job_id
                    label = f"{kind}.{name}" if self._is_ambiguous(kind, name) else name
                    declared = self._types.get(kind, {}).get(name)
                    found.append(Column(label, kind, name, declared, _group(kind, name)))
        return sorted(found, key=_order)

    def _is_ambiguous(self, kind: str, name: str) -> bool:
        if name == "id":
            return kind != "runs"
        others = (names for other, names in self._names.items() if other != kind)
        return name in _RESERVED or any(name in names for names in others)


def _group(kind: str, name: str) -> int:
    if kind == "runs" and name in _FIRST:
        return 0
    if kind == "runs" and name in _BOOKKEEPING:
        return 4
    return ("jobs", "runs", "quantities").index(kind) + 1


def _order(column: Column) -> tuple[int, int, str]:
    fixed = {0: _FIRST, 4: _BOOKKEEPING}.get(column.group, ())
    by_name = column.name if column.kind == "quantities" else ""
    return column.group, fixed.index(column.name) if fixed else 0, by_name


def rows_in(
    content: Snapshot, constraint: Constraint, run_name: str | None, quantities: LastQuantities
) -> Iterator[Row]:
    """The rows of the runs that meet a constraint, by id; only those of ``run_name`` if it is given."""
    for run in content.runs():
        if run_name is not None and run.entries.get("run_name") != run_name:
            continue
        job = content.job(run.entries.get("job_id"))
        if job is None:
            continue
        values, parameters = run.values, job.values
        if constraint.matches(values.__getitem__, parameters.__getitem__):
            yield Row(parameters, values, quantities.of(run))


def _rows_of(tasks: Sequence[tuple[Any, Any]], quantities: LastQuantities) -> Iterator[Row]:
    """The rows of (run, job) pairs, as the session that they belong to sees them."""
    for begin in range(0, len(tasks), _BATCH):
        batch = tasks[begin : begin + _BATCH]
        for objects in zip(*batch, strict=True):
            # New ones are in no database yet, and need not be fetched.
            stored = [obj for obj in objects if obj._p_jar is not None]
            if stored:
                prefetch(stored[0]._p_jar, stored, "entries", "quantities")
        for run, job in batch:
            record = record_of(run.entries["id"], run)
            yield Row(_values(job), record.values, quantities.of(record))


def _values(job: Any) -> Mapping[str, Any]:
    return record_of(None, job).values


def to_dataframe(tasks: Sequence[tuple[Any, Any]], database: StudyDatabase) -> pandas.DataFrame:
    """One row per task, by run id, with the columns that :class:`Header` describes."""
    import pandas

    header, quantities = Header(database.names), LastQuantities(database.directory)
    rows = [header.take(row) for row in _rows_of(tasks, quantities)]
    quantities.report()
    index = pandas.Index([row.runs["id"] for row in rows], dtype="int64", name="id")
    data = {
        column.label: _series([column.of(row) for row in rows], column.type, index)
        for column in header.columns()
        if column.label != "id"
    }
    return pandas.DataFrame(data, index=index)


def _series(values: list[Any], declared: type | None, index: pandas.Index) -> pandas.Series:
    import pandas

    try:
        return pandas.Series(values, index=index, dtype=_dtype(values, declared))
    except (TypeError, ValueError, OverflowError):  # such as whole numbers of more than 64 bits
        return pandas.Series(values, index=index, dtype=object)


def _dtype(values: list[Any], declared: type | None) -> Any:
    """The dtype for values of these types; whole numbers and truth values stay what they are beside gaps."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds and declared is not None:
        kinds = {declared}
    gaps = None in values if kinds <= {int, bool} else False
    if kinds == {int}:
        return "Int64" if gaps else "int64"
    if kinds == {bool}:
        return "boolean" if gaps else "bool"
    if kinds and kinds <= {int, float}:
        return "float64"
    if kinds == {datetime.datetime}:
        return "datetime64[ns]"
    if kinds == {str}:
        return None  # what this version of pandas takes for text
    return object
