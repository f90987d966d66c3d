"""The constraint language: what matches, what is deduced, and what an error says."""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoko_core.errors import ConstraintError
from motoko_core.study.constraint_grammar import _grammar
from motoko_core.study.constraints import Constraint, Names, parse

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


# --- what BlackDynamite's language says --------------------------------------------------------------------


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


# --- and, or, not, parentheses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("x = 1 or x = 2 and x = 3", True),
        ("(x = 1 or x = 2) and x = 3", False),
        ("x = 1 or x = 2, x = 3", True),
        ("not x = 2 and x = 1", True),
        ("not (x = 2 and x = 1)", True),
        ("not x = 1 or x = 1", True),
        ("not not x = 1", True),
        ("NOT x = 2 AND x = 1 Or x = 5", True),
        ("(x=1)and(not(x=2))", True),
        ("((x = 1))", True),
        ("x = 1\n  and\tx < 2", True),
    ],
)
def test_not_binds_tighter_than_and_and_that_tighter_than_or(constraint: str, expected: bool) -> None:
    assert matches(constraint, x=1.0) is expected


LEAVES = {"x < 1": "x < 1", "y >= 0": "y >= 0", "n = 1": "n == 1", "n in (0, 2)": "n in (0, 2)"}


def trees() -> st.SearchStrategy[tuple[str, str]]:
    """Pairs: a constraint, and the same in Python, with parentheses in neither where there need be none."""

    def extend(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        def join(words: tuple[str, str], parts: list[tuple[str, str]]) -> tuple[str, str]:
            return words[0].join(part[0] for part in parts), words[1].join(part[1] for part in parts)

        words = st.sampled_from([(" and ", " and "), (", ", " and "), (" or ", " or ")])
        return st.one_of(
            st.builds(join, words, st.lists(inner, min_size=2, max_size=4)),
            inner.map(lambda pair: (f"({pair[0]})", f"({pair[1]})")),
            inner.map(lambda pair: (f"not {pair[0]}", f"not {pair[1]}")),
        )

    return st.recursive(st.sampled_from(sorted(LEAVES.items())), extend, max_leaves=12)


@given(trees(), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_a_tree_means_what_python_says(tree: tuple[str, str], x: int, y: int, n: int) -> None:
    constraint, python = tree
    values = {"x": x, "y": y - 1, "n": n}
    parsed = parse(constraint, NAMES)
    found = parsed.matches(getter({}), getter(values))
    assert found is eval(python, {}, values)
    required = parsed.required("jobs", "n")
    assert not found or required is None or n in required


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        ("path = SLURM submit", "SLURM submit"),
        ("path =  SLURM  submit  , n = 1", "SLURM  submit"),
        ("path = /a/b-c.txt", "/a/b-c.txt"),
        ("path = /and/or/a-or b", "/and/or/a-or b"),
        ("path = android or n = 2", "android"),
        ("path = run-1 (copy)", "run-1 (copy)"),
        ("(path = run-1 (copy))", "run-1 (copy)"),
        ("path = k=1&l", "k=1&l"),
        ("path = it's", "it's"),
        ("path = C:\\new\\dir", "C:\\new\\dir"),
        ("path = été", "été"),
        ("path = 3", "3"),
        ("path = 'x'", "x"),
        ('path = "x"', "x"),
        ("path = state", "START"),
        ("path = 'state'", "state"),
        ("path = 'None'", "None"),
        ("path = 'rock and roll, or (so'", "rock and roll, or (so"),
        ("path = 'it''s'", "it's"),
        ('path = "it\'s \\n"', "it's \\n"),
        ("path = ''", ""),
        ("path in (a b, 'c, d', e)", "c, d"),
        ("path in (a b, 'c, d', e)", "a b"),
    ],
)
def test_text_is_taken_as_written(constraint: str, value: str) -> None:
    run = {"path": value, "state": "START"}
    assert matches(constraint, run, n=1)
    assert not matches(constraint, run | {"path": value + "?"}, n=1)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("path = A and path = B", False),
        ("path = A or path = B", True),
        ("path = A AND n = 1", True),
        ("path = A\nor\npath = C", True),
    ],
)
def test_a_word_and_or_or_ends_an_unquoted_value(constraint: str, expected: bool) -> None:
    assert matches(constraint, {"path": "A"}, n=1) is expected


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


# --- in, regular expressions, None -------------------------------------------------------------------------


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


# --- stored values of any type -----------------------------------------------------------------------------


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


# --- what is deduced ---------------------------------------------------------------------------------------


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


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "column", "expected"),
    [
        ("state FINISHED", 7, "an operator"),
        ("state", 6, "an operator"),
        ("state =", 8, "a value"),
        ("state = , x = 1", 9, "a value"),
        ("state = and x = 1", 9, "a value"),
        ("state = (A or B)", 9, "a value"),
        ("n === 3", 5, "a value"),
        ("n =~ 3", 4, "a value"),
        ("n < = 3", 5, "a value"),
        ("state = A x > 3", 13, "'and', 'or', ','"),
        ("state = 'A' B", 13, "'and', 'or', ','"),
        ("x = 1)", 6, "'and', 'or', ','"),
        ("(x = 1", 7, "')'"),
        ("state ~ (a", 11, "')'"),
        ("sizes = [1", 11, "']'"),
        ("path = f(a, b)", 11, "')'"),
        ("n in 3", 6, "'('"),
        ("n in (1, 2", 11, "')'"),
        ("n in ()", 7, "a value"),
        ("x = 1 or", 9, "a comparison"),
        ("x = 1,", 7, "a comparison"),
        ("x = 1, , n = 2", 8, "a comparison"),
        ("not", 4, "a comparison"),
        ("and", 1, "a comparison"),
        ("= 3", 1, "a comparison"),
        ("state = 'A", 9, "the quote is not closed"),
        ("\tx =\n\t1 or\t!", 12, "a comparison"),
    ],
)
def test_a_syntax_error_points_at_its_column_and_says_what_was_expected(
    constraint: str, column: int, expected: str
) -> None:
    message = error_of(constraint)
    assert expected in message
    assert f"column {column} " in message
    _, excerpt, caret, hint = message.splitlines()
    assert excerpt == "    " + re.sub(r"\s", " ", constraint)
    assert caret == " " * (4 + column - 1) + "^"
    assert hint.strip()


def test_the_caret_is_in_place_in_a_long_constraint() -> None:
    message = error_of("x = 1, " * 50 + "n 3" + ", x = 1" * 50)
    _, excerpt, caret, _ = message.splitlines()
    assert excerpt[caret.index("^") :].startswith("3, x = 1")
    assert len(excerpt) < 120


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


# --- size, threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "constraint",
    [
        "(" * 10_000,
        "(" * 5_000 + "x = 1" + ")" * 5_000,
        "not (" * 2_000 + "x = 1" + ")" * 2_000,
        "path ~ " + "(" * 5_000 + ")" * 5_000,
        "path ~ '" + "(" * 5_000 + ")" * 5_000 + "'",
        "sizes = " + "[" * 5_000 + "]" * 5_000,
        "path = " + "'" * 9_999,
        "x = " + "9" * 10_000 + "!",
        ")" * 10_000,
    ],
)
def test_deep_nesting_and_long_input_are_errors_of_the_constraint(constraint: str) -> None:
    assert len(error_of(constraint)) < 25_000


def test_long_flat_constraints_work() -> None:
    assert matches(" or ".join(f"n = {number}" for number in range(1_000)), n=999)
    assert matches(f"n in ({', '.join(map(str, range(2_000)))})", n=1_999)
    assert matches("not " * 2_000 + "n = 1", n=1)
    assert matches("free < " + "9" * 5_000, free=1)
    assert matches("(" * 20 + "n = 1" + ")" * 20, n=1)


def test_threads_may_parse_at_the_same_time() -> None:
    _grammar.cache_clear()

    def both(number: int) -> Constraint:
        return parse(f"n = {number} or (state ~ ^S and not x in (1, 2))", NAMES)

    with ThreadPoolExecutor(8) as pool:
        for number, constraint in enumerate(pool.map(both, range(64))):
            assert constraint.matches(getter({"state": ""}), getter({"n": number}))


PIECES = ["x", "n", "=", "(", ")", "[", "'", '"', ",", "and", "or", "not", "in", "1", "\\", "~", "."]


@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_any_text_is_a_constraint_or_a_constraint_error(text: str) -> None:
    try:
        constraint = parse(text, NAMES)
    except ConstraintError:
        return
    assert constraint.matches(getter({}), getter({"x": 1, "n": "1"})) in (True, False)


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
