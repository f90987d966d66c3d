"""What a constraint matches, whatever values are stored, and what is deduced from it."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoko_core.study.constraints import parse
from tests.core.study.matching import NAMES, getter, matches


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("n in (1, 2)", True),
        ("n in(1,2)", True),
        ("n IN (1)", False),
        ("n not in (1, 2)", False),
        ("n Not  In (1)", True),
        ("not n in (1)", True),
        ("n in (1, runs.id)", True),
        ("n not in (1, runs.id)", False),
        ("n in (None, 2)", True),
        ("runs.in = 5", True),
        ("path in (A, B)", False),
    ],
)
def test_in_lists_values_and_entries(constraint: str, expected: bool) -> None:
    assert matches(constraint, {"id": 2, "in": 5, "path": "C"}, n=2) is expected


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("state ~ ISH", True),
        ("state ~ ish", False),
        ("state ~* ish", True),
        ("state !~ ish", True),
        ("state !~* ish", False),
        ("state ~ ^FIN.*D$", True),
        ("state ~ ^(START|FINISHED)$ and runs.id = 12", True),
        ("(state ~ (A|B))", False),
        ("state ~ I{1,3}[A-S]", True),
        ("state ~ '(a, or b|D$)'", True),
        ("state ~ \\w+\\(", False),
        (r"path ~ '\d+\.txt$'", True),
        ("path ~ state", False),
        ("runs.id ~ ^1", True),
        ("note ~ None", False),
        ("note !~ x", False),
    ],
)
def test_regular_expressions_search(constraint: str, expected: bool) -> None:
    run = {"state": "FINISHED", "id": 12, "path": "/a/12.txt", "note": None}
    assert matches(constraint, run) is expected


@pytest.mark.parametrize("run", [{"start_time": None, "path": None}, {}])
@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("start_time = None", True),
        ("start_time = null", True),
        ("start_time != NONE", False),
        ("start_time in (None)", True),
        ("start_time < 2024-05-01", False),
        ("start_time > 2024-05-01", False),
        ("start_time < None", False),
        ("runs.id > None", False),
        ("runs.id != None", True),
        ("path = abc", False),
        ("path != abc", True),
        ("path not in (abc, d)", True),
        ("path not in (abc, None)", False),
        ("path = note", False),
        ("path != note", False),
        ("path != runs.id", True),
        ("path in (note, abc)", False),
    ],
)
def test_none_equals_the_literal_none_only(run: dict[str, Any], constraint: str, expected: bool) -> None:
    assert matches(constraint, {"id": 1, **run}) is expected


@pytest.mark.parametrize(
    ("constraint", "value", "expected"),
    [
        ("n = 3", np.int64(3), True),
        ("n != 3", np.int64(3), False),
        ("n in (3, 4)", np.int64(3), True),
        ("n < 3", np.int64(2), True),
        ("n = 3", 3.0, True),
        ("n = 3", "3", False),
        ("n < 3", "2", False),
        ("n != 3", "3", True),
        ("n in (3)", "3", False),
        ("n ~ 3", np.int64(31), True),
        ("x = 0.1", np.float32(0.1), True),
        ("x in (0.1, 5)", np.float32(0.1), True),
        ("x > 1", np.float64(1.5), True),
        ("x < 2", 1, True),
        ("x < 2", object(), False),
        ("x < 2", np.array([1.0, 1.0]), False),
        ("x = 2", np.array([2.0, 2.0]), False),
        ("x in (2)", np.array([2.0, 2.0]), False),
        ("x != 2", np.array([2.0, 2.0]), True),
        ("x in (2, 3)", [2], False),
        ("sizes < x", [2], False),
        ("free < abc", 3, False),
        ("free < abc", "abb", True),
    ],
)
def test_any_stored_value_compares_without_an_exception(constraint: str, value: Any, expected: bool) -> None:
    name = constraint.split()[0]
    assert matches(constraint, **{"x": 2.0, name: value}) is expected


def test_a_numpy_result_becomes_a_bool() -> None:
    assert type(parse("n < 3 or n = 3", NAMES).matches(getter({}), getter({"n": np.int64(3)}))) is bool


def test_an_exception_of_the_getter_passes_through() -> None:
    def broken(name: str) -> Any:
        raise TypeError(name)

    with pytest.raises(TypeError, match="state"):
        parse("state = A", NAMES).matches(broken, getter({}))
    with pytest.raises(TypeError, match="state"):
        parse("path < state", NAMES).matches(lambda name: broken(name) if name == "state" else "", getter({}))


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("state = A", {"A"}),
        ("runs.STATE == A", {"A"}),
        ("state = A or state = B", {"A", "B"}),
        ("state in (A, B)", {"A", "B"}),
        ("state in (A, B) and state in (B, C)", {"B"}),
        ("state = A, x > 3", {"A"}),
        ("state = A or x > 3", None),
        ("(state = A or state = B) and (state = B or state = C)", {"B"}),
        ("state = A, state = B", set()),
        ("(state = A, state = B) or state = C", {"C"}),
        ("not state = A", None),
        ("not not state = A", {"A"}),
        ("state != A", None),
        ("state not in (A, B)", None),
        ("state > A", None),
        ("state ~ A", None),
        ("state = path", None),
        ("path = state", None),
        ("state in (A, path)", None),
        ("state = None", {None}),
        ("x = 3", None),
    ],
)
def test_required_values(constraint: str, expected: set[Any] | None) -> None:
    assert parse(constraint, NAMES).required("runs", "State") == expected


def test_required_values_belong_to_their_kind_and_must_be_hashable() -> None:
    assert parse("jobs.id = 3.0", NAMES).required("jobs", "id") == {3}
    assert parse("jobs.id = 3", NAMES).required("runs", "id") is None
    assert parse("sizes = [1]", NAMES).required("jobs", "sizes") is None
    assert parse("sizes in ([1])", NAMES).required("jobs", "sizes") is None


RUN_ENTRIES = {("runs", "id"), ("runs", "path"), ("runs", "state")}


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (None, True),
        ("state = A", True),
        ("state in (A, B)", True),
        ("state = A or (state in (B, C), state = C)", True),
        ("state in (A, B), runs.id = 3, path = 'None'", True),
        ("(state = A or state = B) and (runs.id = 1 or runs.id in (2, 3))", True),
        ("state = A, state = B", True),
        ("not not state = A", True),
        ("state = A or runs.id = 3", False),
        ("state = A or (state = B, runs.id = 3)", False),
        ("state != A", False),
        ("not state = A", False),
        ("state not in (A)", False),
        ("state ~ ^A$", False),
        ("runs.id < 3", False),
        ("state = None", False),
        ("state in (A, None)", False),
        ("path = state", False),
        ("state in (A, path)", False),
        ("runs.job_id = 1", False),
        ("jobs.id = 1", False),
        ("state = A, x = 1", False),
    ],
)
def test_a_table_of_entries_answers_what_asks_for_values_of_them_only(
    constraint: str | None, expected: bool
) -> None:
    assert parse(constraint, NAMES).is_answered_by(RUN_ENTRIES) is expected


def test_values_without_a_reliable_hash_are_not_left_to_a_table() -> None:
    assert not parse("sizes = [1]", NAMES).is_answered_by({("jobs", "sizes")})
    assert not parse("start_time = 2024-05-01", NAMES).is_answered_by({("runs", "start_time")})


def test_entries_are_all_that_is_read() -> None:
    constraint = parse("not (state = A or runs.job_id = jobs.id), x in (n, 1), path ~ note", NAMES)
    runs, jobs = ["state", "job_id", "path"], ["id", "x", "n"]
    assert constraint.entries() == {("runs", name) for name in runs} | {("jobs", name) for name in jobs}


@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "=", "!="])
@given(left=st.integers(-2, 2), right=st.integers(-2, 2))
def test_comparisons_of_numbers_are_those_of_python(symbol: str, left: int, right: int) -> None:
    functions = {
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
        "=": operator.eq,
        "!=": operator.ne,
    }
    assert matches(f"n {symbol} {right}", n=left) is functions[symbol](left, right)
