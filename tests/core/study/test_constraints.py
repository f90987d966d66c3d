"""Constraints as users write them: names, values of the types of their entries, and errors."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from motoko_core.study.constraints import Names, parse
from tests.core.study.matching import NAMES, error_of, getter, matches


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("state = FINISHED", True),
        ("state = START", False),
        ("runs.id < 3", True),
        ("runs.id < 2", False),
        ("jobs.x >= 1.5", True),
        ("jobs.x > 1.5", False),
        ("x <= 1.5", True),
        ("x == 1.5", True),
        ("x != 1.5", False),
        ("state = FINISHED, runs.id < 3", True),
        ("state = FINISHED and runs.id > 3", False),
        ("STATE = FINISHED, Runs.ID < 3", True),
        ("runs . id=2", True),
        ("runs.job_id = jobs.id", True),
        ("job_id = jobs.id", True),
        ("jobs.id = JOB_ID", True),
        ("runs.id = jobs.id", False),
    ],
)
def test_the_syntax_of_blackdynamite(constraint: str, expected: bool) -> None:
    run = {"id": 2, "state": "FINISHED", "job_id": 7}
    assert matches(constraint, run, id=7, x=1.5) is expected


@pytest.mark.parametrize("nothing", [None, "", "  \n", [], ["", " "], ()])
def test_no_constraint_matches_everything(nothing: Any) -> None:
    constraint = parse(nothing, NAMES)
    assert constraint.matches(getter({}), getter({}))
    assert constraint.required("runs", "state") is None
    assert constraint.entries() == frozenset()
    assert constraint.text == ""


def test_all_constraints_of_a_list_hold_and_an_or_stays_within_its_own() -> None:
    constraint = parse(["runs.id < 3 or runs.id > 8", "", "state = A"], NAMES)
    again = parse(constraint.text, NAMES)
    for number, state, expected in [(1, "A", True), (9, "A", True), (5, "A", False), (1, "B", False)]:
        run = getter({"id": number, "state": state})
        assert constraint.matches(run, getter({})) is expected
        assert again.matches(run, getter({})) is expected


def test_any_iterable_of_strings_will_do() -> None:
    assert matches((text for text in ["x = 1", "n = 2"]), x=1.0, n=2)


# --- values ------------------------------------------------------------------------------------------------


NOON = datetime.datetime(2024, 5, 1, 12)


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        ("x = -1.5", -1.5),
        ("x = +2e-3", 0.002),
        ("x = 1E3", 1000.0),
        ("x > -inf", 0.0),
        ("n = 3.0", 3),
        ("n = '3'", 3),
        ("n = -3", -3),
        ("n = 12345678901234567890", 12345678901234567890),
        ("validated = true", True),
        ("validated = YES", True),
        ("validated = 0", False),
        ("validated = no", False),
        ("start_time = 2024-05-01T12:00:00", NOON),
        ("start_time > 2024-05-01", NOON),
        ("start_time < '2024-05-01 12:30'", NOON),
        ("sizes = [1, 2]", [1, 2]),
        ("sizes = ['a)', 'b,c']", ["a)", "b,c"]),
        ("sizes = [true, [null]]", [True, [None]]),
        ("sizes in ([1], [2])", [2]),
        ("options = {'a': (1, 2)}", {"a": (1, 2)}),
        ('options = {"a": null}', {"a": None}),
        ("free = 3", 3),
        ("free = -.5e1", -5.0),
        ("free = '3'", "3"),
        ("free = 3 GB", "3 GB"),
        ("free = inf", "inf"),
        ("free = nano", "nano"),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_entry(constraint: str, value: Any) -> None:
    name = constraint.split()[0]
    assert matches(constraint, {name: value}, **{name: value})


@pytest.mark.parametrize(
    ("entry", "value", "type_name"),
    [
        ("runs.id <", "abc", "int"),
        ("runs.id =", "3.5", "int"),
        ("runs.id in (1, 2,", "nan)", "int"),
        ("jobs.x =", "'1 5'", "float"),
        ("runs.validated =", "maybe", "bool"),
        ("runs.start_time >", "yesterday", "datetime"),
        ("jobs.sizes =", "{1: 2}", "list"),
        ("jobs.sizes =", "'[1'", "list"),
        ("jobs.options =", "[1]", "dict"),
        ("jobs.sizes =", "'" + "[" * 9_000 + "'", "list"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_entry(
    entry: str, value: str, type_name: str
) -> None:
    message = error_of(f"{entry} {value}")
    assert entry.split()[0] in message
    assert f"of type {type_name}" in message
    assert value.strip("')") in message


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "column", "said"),
    [
        ("stat = A", 1, ["'stat'", "Did you mean 'state'?", "job_id", "sizes"]),
        ("x = 1, runs.idd < 3", 8, ["'runs.idd'", "Did you mean 'runs.id'?", "runs.job_id"]),
        ("jobs.state = A", 1, ["'jobs.state'", "runs.state", "jobs.sizes"]),
        ("job.id = 1", 1, ["'job.id'", "Known:"]),
        ("runs.x.y = 1", 1, ["'runs.x.y'"]),
        ("id = 3", 1, ["ambiguous", "runs.id or jobs.id"]),
        ("runs.job_id = ID", 15, ["ambiguous", "runs.id or jobs.id", "quote"]),
        ("x = 1 and state ~ [a", 21, ["']'"]),
        ("x = 1 and state ~ '[a'", 19, ["runs.state", "'[a'", "regular expression"]),
        ("state ~* *a", 10, ["runs.state", "'*a'", "regular expression"]),
        ("state ~ a{99999999999999999999}", 9, ["runs.state", "regular expression"]),
    ],
)
def test_a_wrong_name_or_pattern_is_explained(constraint: str, column: int, said: list[str]) -> None:
    message = error_of(constraint)
    assert f"column {column} " in message
    assert [text for text in said if text not in message] == []


def test_a_study_without_entries_says_that_there_is_none() -> None:
    assert "none to choose from" in error_of("x = 1", Names(runs={}, jobs={}))


@pytest.mark.parametrize(
    ("constraint", "type_name"),
    [(3, "int"), (["x = 1", 3], "int"), (b"x = 1", "bytes"), ({"x": 1}, "dict"), ([None], "NoneType")],
)
def test_what_is_no_string_is_named_with_its_type(constraint: Any, type_name: str) -> None:
    assert f"type {type_name}" in error_of(constraint)
