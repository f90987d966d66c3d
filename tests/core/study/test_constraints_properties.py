"""Random constraints mean what a plain evaluation says, and what BlackDynamite's own evaluation says."""

from __future__ import annotations

import datetime
import json
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np
import pytest
from BlackDynamite.constraints_zeo import ZEOconstraints
from hypothesis import given
from hypothesis import strategies as st

from motoko_core import lifecycle
from motoko_core.study.constraints import Constraint, Names, parse
from motoko_core.workflow import Workflow

RUNS: dict[str, type | None] = {
    "id": int,  # ambiguous without its prefix
    "job_id": int,
    "state": str,
    "in": str,  # a word of the language
    "start_time": datetime.datetime,
    "done": bool,
    "note": None,
}
JOBS: dict[str, type | None] = {"id": int, "x": float, "n": int, "label": str, "sizes": list}
NAMES = Names(runs=RUNS, jobs=JOBS)

Entry: TypeAlias = tuple[Any, str]
Rows: TypeAlias = Mapping[str, Mapping[str, Any]]
ENTRIES: dict[Entry, type | None] = {
    **{("runs", name): to for name, to in RUNS.items()},
    **{("jobs", name): to for name, to in JOBS.items()},
}

# --- What a constraint means, in a few words of Python ------------------------------------------------------

ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def tried(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    try:
        return bool(compare(left, right))
    except (TypeError, ValueError, ArithmeticError):
        return False


def same(left: Any, right: Any) -> bool:
    return tried(operator.eq, left, right)


class Tree:
    """A constraint that was made up, beside its text."""

    def holds(self, rows: Rows) -> bool:
        raise NotImplementedError


@attrs.frozen
class Compared(Tree):
    entry: Entry
    symbol: str
    right: Any
    with_entry: bool

    def holds(self, rows: Rows) -> bool:
        left = value_in(rows, self.entry)
        right = value_in(rows, self.right) if self.with_entry else self.right
        if self.symbol in ("=", "=="):
            # Two entries that both lack a value are not equal, nor are they different.
            return same(left, right) and not (self.with_entry and left is None)
        return not same(left, right) if self.symbol == "!=" else tried(ORDERS[self.symbol], left, right)


@attrs.frozen
class Listed(Tree):
    entry: Entry
    values: list[Any]
    negated: bool

    def holds(self, rows: Rows) -> bool:
        left = value_in(rows, self.entry)
        return any(same(left, value) for value in self.values) is not self.negated


@attrs.frozen
class Searched(Tree):
    entry: Entry
    symbol: str
    pattern: str

    def holds(self, rows: Rows) -> bool:
        left = value_in(rows, self.entry)
        if left is None:
            return False
        found = re.search(self.pattern, str(left), re.IGNORECASE if "*" in self.symbol else 0)
        return bool(found) is not self.symbol.startswith("!")


@attrs.frozen
class Negated(Tree):
    part: Tree

    def holds(self, rows: Rows) -> bool:
        return not self.part.holds(rows)


@attrs.frozen
class Joined(Tree):
    word: str
    parts: list[Tree]

    def holds(self, rows: Rows) -> bool:
        return (any if self.word == "or" else all)([part.holds(rows) for part in self.parts])


def value_in(rows: Rows, entry: Entry) -> Any:
    return rows[entry[0]].get(entry[1])


# --- Making them up, with their texts -----------------------------------------------------------------------

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
BLANKS = st.sampled_from([" ", " ", "\n", " \t "])
NO_BLANKS = st.sampled_from(["", " ", "", "\r\n"])

# Few values, so that they meet again in the runs, and any others.
TEXTS = st.sampled_from(["A", "a", "B1", "SLURM submit", "it's", "state", "None", "and", ""]) | st.text(
    max_size=6
)
INTEGERS = st.integers(-2, 2) | st.integers()
FLOATS = st.sampled_from([0.1, -0.5, 1.0, 2e20]) | st.floats()
LISTS = st.lists(st.integers(-1, 1) | TEXTS, max_size=2)
TIMES = st.sampled_from([datetime.datetime(2024, 5, 1, 12), datetime.datetime(2024, 5, 1)]) | st.datetimes()
VALUES: dict[type | None, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    list: LISTS,
    datetime.datetime: TIMES,
    None: TEXTS | INTEGERS | st.floats(allow_nan=False, allow_infinity=False),
}
# What scripts store whatever was declared.
STRANGE = st.sampled_from(
    [
        np.int64(1),
        np.float32(0.1),
        np.float64("nan"),
        np.str_("A"),
        np.array([1.0, 1.0]),
        np.array("A"),
        {},
        (),
    ]
)


def quoted(draw: Draw, text: str) -> str:
    quote = draw(st.sampled_from("'\""))
    return quote + text.replace(quote, quote * 2) + quote


def is_safe(text: str) -> bool:
    """Whether a text may stand without quotes, judged with more caution than the language needs."""
    words = text.lower().split(" ")
    names = [name for _, name in ENTRIES]
    return (
        re.fullmatch(r"[\w/%-][\w/%.'\\-]*( [\w/%.-]+)*", text) is not None
        and not {"and", "or", "none", "null", "runs", "jobs"} & {*re.split(r"[^\w]", text.lower())}
        and words[0] not in names
    )


def value_text(draw: Draw, value: Any, to: type | None) -> str:
    if value is None:
        return str(draw(st.sampled_from(["None", "none", "NULL"])))
    if isinstance(value, bool):
        text = draw(st.sampled_from(["true", "Yes", "1"] if value else ["FALSE", "no", "0"]))
    elif isinstance(value, (int, float)):
        text = repr(value)
        if to is None:  # what has quotes is a text there
            return text
    elif isinstance(value, datetime.datetime):
        text = value.isoformat(draw(st.sampled_from("T ")))
    elif isinstance(value, list):
        text = draw(st.sampled_from([json.dumps(value), repr(value)]))
        if any(isinstance(item, str) and not item.isalnum() for item in value):
            return quoted(draw, text)
    else:
        text = value
        is_number = to is None and re.search(r"\d", text)
        if is_number or not is_safe(text):
            return quoted(draw, text)
    return quoted(draw, text) if draw(st.booleans()) else text


def name_text(draw: Draw, entry: Entry) -> str:
    kind, name = entry
    in_both = name in RUNS and name in JOBS
    if in_both or name == "in" or draw(st.booleans()):
        name = kind + draw(st.sampled_from([".", ".", " . "])) + name
    return draw(st.sampled_from([name, name.upper(), name.title()]))


@st.composite
def leaves(draw: Draw) -> tuple[str, Tree]:
    entry = draw(st.sampled_from(sorted(ENTRIES)))
    to = ENTRIES[entry]
    name = name_text(draw, entry)
    values = VALUES[to] | st.none()
    form = draw(st.sampled_from(["value", "value", "entry", "in", "pattern"]))
    if form == "pattern":
        symbol = draw(st.sampled_from(["~", "!~", "~*", "!~*"]))
        pattern = draw(st.sampled_from([r"^A", r"a|b", r"[B1]+$", r"\d", ".", r"(1|None)", "", r"it's"]))
        text = pattern if pattern and draw(st.booleans()) else quoted(draw, pattern)
        return f"{name}{draw(NO_BLANKS)}{symbol} {text}", Searched(entry, symbol, pattern)
    if form == "in":
        chosen = draw(st.lists(values, min_size=1, max_size=3))
        negated = draw(st.booleans())
        word = draw(st.sampled_from(["not in", "NOT  IN"] if negated else ["in", "IN"]))
        texts = f"{draw(NO_BLANKS)},{draw(NO_BLANKS)}".join(value_text(draw, value, to) for value in chosen)
        return f"{name} {word}{draw(NO_BLANKS)}({texts})", Listed(entry, chosen, negated)
    symbol = draw(st.sampled_from(["=", "=", "==", "!=", *ORDERS]))
    if form == "entry":
        other = draw(st.sampled_from(sorted(ENTRIES)))
        return f"{name} {symbol}{draw(NO_BLANKS)}{name_text(draw, other)}", Compared(
            entry, symbol, other, True
        )
    value = draw(values)
    text = f"{name}{draw(NO_BLANKS)}{symbol}{draw(BLANKS)}{value_text(draw, value, to)}"
    return text, Compared(entry, symbol, value, False)


@st.composite
def joined(draw: Draw, parts: st.SearchStrategy[tuple[str, Tree]]) -> tuple[str, Tree]:
    word = draw(st.sampled_from(["and", "or", "not"]))
    chosen = [draw(parts)] if word == "not" else draw(st.lists(parts, min_size=2, max_size=3))
    # `not` binds most tightly, `or` least: the parts that need no parentheses may go without.
    bare = {"not": (), "and": ("not",), "or": ("not", "and")}[word]
    texts = []
    for text, tree in chosen:
        own = tree.word if isinstance(tree, Joined) else "not" if isinstance(tree, Negated) else None
        free = own is None or own in bare or own == word
        texts.append(text if free and draw(st.booleans()) else f"({draw(NO_BLANKS)}{text}{draw(NO_BLANKS)})")
    trees = [tree for _, tree in chosen]
    if word == "not":
        return f"{draw(st.sampled_from(['not', 'NOT']))}{draw(BLANKS)}{texts[0]}", Negated(trees[0])
    link = draw(st.sampled_from([",", ", ", " and ", "\nAND "] if word == "and" else [" or ", " Or\n"]))
    return link.join(texts), Joined(word, trees)


def constraints() -> st.SearchStrategy[tuple[str, Tree]]:
    return st.recursive(leaves(), joined, max_leaves=6)


@st.composite
def rows(draw: Draw) -> Rows:
    made: dict[str, dict[str, Any]] = {"runs": {}, "jobs": {}}
    for (kind, name), to in ENTRIES.items():
        usual, other = VALUES[to], st.none() | STRANGE | st.one_of(*VALUES.values())
        if draw(st.integers(0, 4)):  # some lack the entry
            made[kind][name] = draw(usual if draw(st.integers(0, 3)) else other)
    return made


def matches(constraint: Constraint, rows: Rows) -> bool:
    return constraint.matches(rows["runs"].__getitem__, rows["jobs"].__getitem__)


# --- The properties -----------------------------------------------------------------------------------------


@given(constraints(), st.lists(rows(), min_size=1, max_size=4))
def test_a_constraint_means_what_a_plain_evaluation_says(made: tuple[str, Tree], several: list[Rows]) -> None:
    text, tree = made
    constraint = parse(text, NAMES)
    assert [matches(constraint, rows) for rows in several] == [tree.holds(rows) for rows in several]


@given(st.lists(constraints(), max_size=3), rows())
def test_all_of_a_list_hold_and_its_text_reads_back_as_the_same(
    made: list[tuple[str, Tree]], rows: Rows
) -> None:
    constraint = parse([text for text, _ in made], NAMES)
    again = parse(constraint.text, NAMES)
    assert matches(constraint, rows) is matches(again, rows) is all(tree.holds(rows) for _, tree in made)
    assert again.entries() == constraint.entries()
    for entry in ENTRIES:
        assert repr(again.required(*entry)) == repr(constraint.required(*entry))


@given(constraints(), rows())
def test_required_is_never_narrower_than_the_matches(made: tuple[str, Tree], rows: Rows) -> None:
    constraint = parse(made[0], NAMES)
    if matches(constraint, rows):
        for entry in ENTRIES:
            required = constraint.required(*entry)
            assert required is None or any(same(value_in(rows, entry), value) for value in required)


@given(constraints(), rows())
def test_a_table_answers_exactly_what_it_is_said_to(made: tuple[str, Tree], rows: Rows) -> None:
    constraint = parse(made[0], NAMES)
    if constraint.is_answered_by(ENTRIES.keys()):
        wanted = {entry: constraint.required(*entry) for entry in constraint.entries()}
        assert None not in wanted.values()
        found = all(
            any(same(value_in(rows, entry), value) for value in values or ())
            for entry, values in wanted.items()
        )
        assert matches(constraint, rows) is found


@given(constraints())
def test_what_is_read_is_known(made: tuple[str, Tree]) -> None:
    """A row that lacks everything else gives the same answer."""
    constraint = parse(made[0], NAMES)
    assert constraint.entries() <= ENTRIES.keys()

    def get(kind: str) -> Callable[[str], Any]:
        def value(name: str) -> Any:
            assert (kind, name) in constraint.entries()
            return None

        return value

    constraint.matches(get("runs"), get("jobs"))


# --- BlackDynamite ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(shared_directory: Path) -> Iterator[Any]:
    workflow = Workflow(shared_directory / "motoko.yaml")
    yield workflow.mult
    lifecycle.disconnect(workflow)


class BothParsers:
    """A run and its job, and what Motoko and BlackDynamite say of them."""

    def __init__(self, study: Any, run: Mapping[str, Any], job: Mapping[str, Any]) -> None:
        self.study = study
        self.run, self.job = study.base.Run(), study.base.Job()
        self.run.entries.clear()
        self.job.entries.clear()
        self.run.entries.update(run)
        self.job.entries.update(job)

    def motoko(self, constraints: list[str]) -> bool:
        parsed = parse(constraints, self.study.database.names)
        return parsed.matches(self.run.entries.__getitem__, self.job.entries.__getitem__)

    def blackdynamite(self, constraints: list[str]) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pyparsing's older names
            condition = ZEOconstraints(self.study.base, constraints).getMatchingCondition()
        return bool(condition([self.run, self.job]))


@st.composite
def common(draw: Draw) -> list[str]:
    """Constraints of the language that both know; what it leaves out stands in the table below."""
    types = {"runs.id": int, "nproc": int, "run_name": str, "state": str, "note": str}
    types |= {"jobs.id": int, "x": float, "n": int, "label": str, "runs.job_id": int, "jobs.x": float}

    def one() -> str:
        name = draw(st.sampled_from(sorted(types)))
        value = {
            int: st.integers(0, 3).map(str),
            float: st.sampled_from(["0", "1.5", "2.", "1e-3", "inf", "1E2"]),
            str: st.sampled_from(["A", "a", "B-1", "SLURM submit", "SLURM  submit", "3", "1.5", "a.b-c_d"]),
        }[types[name]]
        # Only what can be ordered, for BlackDynamite stops with a TypeError.
        alike = sorted(other for other in types if (types[other] is str) is (types[name] is str))
        right = draw(value | st.sampled_from(alike))
        symbol = draw(st.sampled_from(["=", "!=", "<", ">"]))
        if "." in name:
            kind, _, rest = name.partition(".")
            name = f"{kind}.{draw(st.sampled_from([rest, rest.upper()]))}"
        return f"{name}{draw(NO_BLANKS)}{symbol}{draw(NO_BLANKS)}{right}"

    return [one() for _ in range(draw(st.integers(1, 3)))]


@st.composite
def stored(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    texts = st.sampled_from(["A", "a", "B-1", "SLURM submit", "3", "1.5", "a.b-c_d"])
    numbers = st.integers(0, 3)
    run = {
        "id": numbers,
        "job_id": numbers,
        "nproc": numbers,
        "run_name": texts,
        "state": texts,
        "note": texts,
    }
    job = {
        "id": numbers,
        "n": numbers,
        "x": numbers | st.sampled_from([0.001, 1.5, float("inf")]),
        "label": texts,
    }
    return draw(st.fixed_dictionaries(run)), draw(st.fixed_dictionaries(job))


@given(common(), stored())
def test_blackdynamite_agrees(
    study: Any, constraints: list[str], stored: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    both = BothParsers(study, *stored)
    assert both.motoko(constraints) is both.blackdynamite(constraints)


RUN = {"id": 1, "job_id": 1, "state": "A", "run_name": "x y", "nproc": None}
JOB = {"id": 1, "x": 1.5, "n": -1}


@pytest.mark.parametrize(
    ("constraint", "motoko", "blackdynamite"),
    [
        # A comma is read, but what it was read as is then called; `and` is a part of the value.
        ("state = A, runs.id = 1", True, TypeError),
        ("state = A and runs.id = 1", True, False),
        ("runs.id = 1 and state = A", True, ValueError),
        # So are blanks at the end; what follows an odd character is not read at all.
        ("state = A ", True, False),
        ("state = A#B", False, True),
        # A value whose first word is the name of an entry is taken for that entry.
        ("run_name = x y", True, False),
        # Neither signs, quotes, other operators and alternatives, nor None.
        ("n = -1", True, RuntimeError),
        ("state = 'A'", True, RuntimeError),
        ("runs.id <= 1", True, RuntimeError),
        ("state ~ A", True, RuntimeError),
        ("state in (A, B)", True, RuntimeError),
        ("(state = A or state = B)", True, RuntimeError),
        ("nproc = None", True, ValueError),
        # Prefixes are in lower case there.
        ("RUNS.id = 1", True, RuntimeError),
        # What is missing or None cannot be ordered, and what is missing not even compared.
        ("nproc < 3", False, TypeError),
        ("nproc != 3", True, True),
        ("note = A", False, AttributeError),
        ("note != A", True, AttributeError),
        ("state > x", False, TypeError),
        # Two entries without a value: Motoko calls them neither equal nor different.
        ("nproc = runs.last_step", False, True),
    ],
)
def test_where_blackdynamite_differs(
    study: Any, constraint: str, motoko: bool, blackdynamite: bool | type[Exception]
) -> None:
    both = BothParsers(study, {**RUN, "last_step": None}, JOB)
    assert both.motoko([constraint]) is motoko
    if isinstance(blackdynamite, bool):
        assert both.blackdynamite([constraint]) is blackdynamite
    else:
        with pytest.raises(blackdynamite):
            both.blackdynamite([constraint])
