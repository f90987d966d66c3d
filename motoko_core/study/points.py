"""The parameters that tasks are created with: checked against their declarations, and spanning a space."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any

from motoko_core.entries import CANCEL, FAILURE, HANDLE
from motoko_core.errors import TaskError, nearest
from motoko_core.study import blackdynamite as bd

#: (A time in ``NOT_BEFORE`` has an effect: the run is not executed before that time.)
_REFUSED = ("id", "job_id", "state", HANDLE, FAILURE, CANCEL)


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
