"""Parameters of tasks: converted to what is declared, and spanning a space."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from motoko_core.errors import TaskError
from motoko_core.study.points import Points, convert

NOW = datetime.datetime(2026, 1, 2)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, float, 1.0),
        (2.0, int, 2),
        (1, complex, 1 + 0j),
        (1, bool, True),
        (False, bool, False),
        ((1, 2), list, [1, 2]),
        ({"a": 1}, dict, {"a": 1}),
        ("a", str, "a"),
        (NOW, datetime.datetime, NOW),
        (None, int, None),
        ("anything", None, "anything"),
    ],
)
def test_value_is_converted(value: Any, wanted: Any, expected: Any) -> None:
    found = convert(value, wanted, "x", study="it")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(2, bool), ("yes", bool), ("2026-01-02", datetime.datetime), ([1], dict), (1j, float), ("a", complex)],
)
def test_value_of_another_type_is_refused(value: Any, wanted: Any) -> None:
    with pytest.raises(
        TaskError, match=f"parameter 'x' of study 'it' is declared as {wanted.__name__}, but was given"
    ):
        convert(value, wanted, "x", study="it")


def test_converted_value_is_a_copy() -> None:
    value = {"a": [1]}
    found = convert(value, None, "x", study="it")
    value["a"].append(2)
    assert found == {"a": [1]}


def test_points_are_in_the_order_of_the_parameters() -> None:
    found = list(Points({"n": [1, 2], "x": [3, 4]}, {"x": float, "n": int}, study="it"))
    assert [(point["n"], point["x"]) for point in found] == [(1, 3.0), (1, 4.0), (2, 3.0), (2, 4.0)]
    assert list(Points({"n": []}, {"n": int}, study="it")) == []
    assert list(Points({}, {"n": int}, study="it")) == [{}]
