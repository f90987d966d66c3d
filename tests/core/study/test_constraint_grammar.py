"""The syntax of constraints: what binds to what, where a value ends, and what is no constraint."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoko_core.errors import ConstraintError
from motoko_core.study.constraint_grammar import _grammar
from motoko_core.study.constraints import Constraint, parse
from tests.core.study.matching import NAMES, error_of, getter, matches


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
