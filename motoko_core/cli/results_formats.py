"""The formats of ``motoko results``.

The names of all columns are known when the last row was read. Until then csv and json keep the rows in a
temporary file, so that the memory does not grow with the study.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, TypeAlias

from motoko_core.cli.destination import Stdout, Target
from motoko_core.cli.output import OutputError, columns, is_terminal, plural, say, table
from motoko_core.errors import MotokoError
from motoko_core.study.table import Column, Header, Row

#: Task manager, its columns once all rows were read, its rows.
Study: TypeAlias = tuple[str, Header, Iterable[Row]]
Writer: TypeAlias = Callable[[Iterable[Study], Any], None]


def writer(name: str) -> Writer:
    """What writes a format.

    :raises ~motoko_core.errors.MotokoError: a package that it needs is not installed.
    """
    if name == "parquet":
        _pyarrow()
    return {"table": write_table, "csv": write_csv, "json": write_json, "parquet": write_parquet}[name]


# ---------------------------------------------------------------------- rows that wait


class _Spool:
    """Rows as JSON in a temporary file."""

    def __init__(self, rows: Iterable[Row]) -> None:
        try:
            self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115
            for row in rows:
                self._file.write(_encoded([row.jobs, row.runs, row.quantities], _encode_spooled) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot keep the rows in a temporary file: {error.strerror or error}",
                hint="The variable TMPDIR names the directory for it.",
            ) from error

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield Row(*json.loads(line))

    def close(self) -> None:
        self._file.close()


def _unlike_json(value: Any) -> Any:
    """What JSON has no word for."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    if hasattr(value, "items"):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (set, frozenset)) or hasattr(value, "append"):
        return list(value)
    return str(value)


_encode_spooled = json.JSONEncoder(default=_unlike_json, ensure_ascii=False).encode
_encode_strictly = json.JSONEncoder(default=_unlike_json, ensure_ascii=False, allow_nan=False).encode


def _encoded(value: Any, encode: Callable[[Any], str]) -> str:
    try:
        return encode(value)
    except (TypeError, ValueError):  # keys that are no text; numbers that are none
        return encode(_mended(value, keeps_nan=encode is _encode_spooled))


def _mended(value: Any, *, keeps_nan: bool) -> Any:
    if isinstance(value, dict):
        return {str(key): _mended(item, keeps_nan=keeps_nan) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item, keeps_nan=keeps_nan) for item in value]
    if isinstance(value, float) and not keeps_nan and not math.isfinite(value):
        return None
    return value


def _text(value: Any) -> Any:
    """A value in a cell: lists and mappings as JSON."""
    return _encoded(value, _encode_spooled) if isinstance(value, (list, tuple, dict)) else value


# ---------------------------------------------------------------------- formats


def write_csv(studies: Iterable[Study], target: Target) -> None:
    """One table for all studies; cells of columns that a study does not have are empty."""
    read = [(name, _Spool(rows), header.columns()) for name, header, rows in studies]
    labels = _union([own for _, _, own in read])
    lines = csv.writer(target, lineterminator="\n")
    lines.writerow(["task", *labels])
    for name, rows, own in read:
        by_label = {column.label: column for column in own}
        places = [by_label.get(label) for label in labels]
        for row in rows:
            lines.writerow([name, *(None if column is None else _text(column.of(row)) for column in places)])
        rows.close()


def _union(of: Iterable[list[Column]]) -> list[str]:
    """The labels of all studies' columns."""
    groups: dict[str, int] = {}
    for column in (column for own in of for column in own):
        groups.setdefault(column.label, column.group)
    return sorted(groups, key=lambda label: groups[label])


def write_json(studies: Iterable[Study], target: Target) -> None:
    """One list with an object per task, which has the columns of its own study."""
    separator = "[\n"
    for name, header, rows in studies:
        spool = _Spool(rows)
        own = header.columns()
        for row in spool:
            found = {"task": name, **{column.label: column.of(row) for column in own}}
            target.write(separator + _encoded(found, _encode_strictly))
            separator = ",\n"
        spool.close()
    target.write("[]\n" if separator == "[\n" else "\n]\n")


def write_table(studies: Iterable[Study], target: Target) -> None:
    """A table per study, without what says how a run was executed."""
    for number, (name, header, found) in enumerate(studies):
        rows = list(found)
        shown = [column for column in header.columns() if not column.is_bookkeeping]
        cells = [[_text(column.of(row)) for column in shown] for row in rows]
        labels = [column.label for column in shown]
        title = f"{name}: {plural(len(rows), 'task')}"
        if isinstance(target, Stdout) and is_terminal():
            say(("\n" if number else "") + title)
            table(labels, cells)
            continue
        texts = [["" if cell is None else str(cell) for cell in line] for line in cells]
        target.write(("\n" if number else "") + "\n".join([title, *columns([labels, *texts])]) + "\n")


# ---------------------------------------------------------------------- parquet


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MotokoError(
            f"parquet needs the package pyarrow ({error})", hint="pip install 'motoko[parquet]'"
        ) from error
    return pyarrow


def write_parquet(studies: Iterable[Study], target: IO[str]) -> None:
    """One table for all studies; lists of numbers stay lists, mappings and mixtures become JSON."""
    pyarrow = _pyarrow()
    read = [(name, list(rows), header.columns()) for name, header, rows in studies]
    names = [name for name, rows, _ in read for _ in rows]
    data = {"task": pyarrow.array(names, pyarrow.string())}
    for label in _union([own for _, _, own in read]):
        values: list[Any] = []
        declared = None
        for _, rows, own in read:
            column = next((column for column in own if column.label == label), None)
            values += [None if column is None else column.of(row) for row in rows]
            declared = declared or (column.type if column is not None else None)
        data[label] = _array(pyarrow, values, declared)
    pyarrow.parquet.write_table(pyarrow.table(data), target.buffer)  # type: ignore[attr-defined]


def _array(pyarrow: Any, values: list[Any], declared: type | None) -> Any:
    types = {float: pyarrow.float64(), int: pyarrow.int64(), str: pyarrow.string(), bool: pyarrow.bool_()}
    kinds = {type(value) for value in values if value is not None}
    kind = next(iter(kinds)) if len(kinds) == 1 else declared if not kinds else None
    if dict not in kinds:
        with suppress(pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            return pyarrow.array(values, None if kind is None else types.get(kind))
    texts = (value if isinstance(value, str) else _encoded(value, _encode_spooled) for value in values)
    return pyarrow.array(
        [None if value is None else text for value, text in zip(values, texts, strict=True)], pyarrow.string()
    )
