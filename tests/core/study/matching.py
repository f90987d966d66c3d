"""Constraints on the entries of a study that is made up."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from motoko_core.errors import ConstraintError
from motoko_core.study.constraints import Names, parse

NAMES = Names(
    runs={
        "id": int,
        "job_id": int,
        "state": str,
        "path": str,
        "start_time": datetime.datetime,
        "validated": bool,
        "note": None,
        "in": int,
    },
    jobs={"id": int, "x": float, "y": float, "n": int, "sizes": list, "options": dict, "free": None},
)


def getter(values: Mapping[str, Any]) -> Callable[[str], Any]:
    return values.__getitem__


def matches(constraints: Any, run: Mapping[str, Any] | None = None, **job: Any) -> bool:
    return parse(constraints, NAMES).matches(getter(run or {}), getter(job))


def error_of(constraints: Any, names: Names = NAMES) -> str:
    with pytest.raises(ConstraintError) as caught:
        parse(constraints, names)
    return str(caught.value)
