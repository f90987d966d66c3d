"""The constraint language: which runs a selection or an event means.

A constraint such as ``state = FINISHED, jobs.x in (1, 2)`` is read once by :func:`parse`, with every name
looked up and every value converted to its entry's type, and then asked about many runs. All that can be
wrong with a constraint is found by :func:`parse`; matching raises nothing of its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, cast

import attrs

from motoko_core.errors import ConstraintError, nearest
from motoko_core.study.constraint_grammar import (
    NAME,
    Comparison,
    Junction,
    Negation,
    Operand,
    Syntax,
    constraint_error,
    read,
)
from motoko_core.study.constraint_tree import (
    COMPARISONS,
    All,
    AnyOf,
    Entry,
    Getter,
    In,
    Kind,
    Node,
    Not,
    Predicate,
    Test,
    equal,
    lacks_pattern,
    matches_pattern,
    unequal,
)


@attrs.frozen(kw_only=True)
class Names:
    """What the constraints of a study may mention: entry name (lower case) -> type, None if it has none."""

    jobs: Mapping[str, type | None]
    runs: Mapping[str, type | None]

    def of(self, kind: Kind) -> Mapping[str, type | None]:
        """Return the entries of the runs or of the jobs."""
        return self.runs if kind == "runs" else self.jobs


@attrs.frozen(kw_only=True, eq=False)
class Constraint:
    """A constraint that was read by :func:`parse`; it belongs to no study object and may be shared.

    :param text: the constraint as one string, which reads back as the same constraint.
    """

    text: str
    _tree: Node = attrs.field(repr=False)
    _predicate: Predicate = attrs.field(repr=False)

    def matches(self, run: Getter, job: Getter) -> bool:
        """Tell whether a run and its job match.

        An entry without a value counts as None. A comparison with None is False, except for ``= None`` and
        for ``!=`` and ``not in`` with values; so is a comparison of values that Python cannot order.

        :param run: returns the value of an entry of the run; KeyError means that the run lacks the entry.
            Any other exception passes through.
        :param job: the same for the run's job.
        """
        return self._predicate(run, job)

    def required(self, kind: Kind, name: str) -> frozenset[Any] | None:
        """Return the values one of which this entry has in every match; None if any value may do.

        It is deduced from ``=`` and ``in`` under ``and`` and ``or``, so it may be wider than necessary but
        never narrower. Empty: the constraint contradicts itself, and nothing matches.
        """
        return self._tree.required(kind, name.lower())

    def is_answered_by(self, entries: Set[tuple[Kind, str]]) -> bool:
        """Tell whether :meth:`required` of these entries says all that the constraint says.

        Then what has one of the required values in each of them matches, whatever else it has, and nothing
        else does: a table of the entries answers the constraint. The values are never None.

        :param entries: as (kind, name), the name in lower case.
        """
        return self._tree.is_exact and self.entries() <= entries

    def entries(self) -> frozenset[tuple[Kind, str]]:
        """Return the entries that the constraint reads, as (kind, name)."""
        return frozenset((entry.kind, entry.name) for entry in self._tree.reads())


def parse(constraints: str | Iterable[str] | None, names: Names) -> Constraint:
    """Read a constraint, or several that must all hold; None, blank text and an empty list match everything.

    :raises ConstraintError: with the position and what would be right: for text that is no constraint, an
        entry that is unknown or ambiguous, a value that is not of its entry's type, a bad regular
        expression, parentheses nested too deeply, or something else than strings.
    """
    texts = [text for text in _texts(constraints) if text.strip()]
    trees = []
    for text in texts:
        try:
            trees.append(_resolve(read(text), _Resolver(text, names)))
        except RecursionError:
            raise constraint_error(
                "the constraint is nested too deeply", text, 0, "Write it with fewer parentheses."
            ) from None
    tree = trees[0] if len(trees) == 1 else All(tuple(trees))
    text = texts[0] if len(texts) == 1 else " and ".join(f"({text})" for text in texts)
    return Constraint(text=text, tree=tree, predicate=tree.compile())


def _texts(constraints: object) -> list[str]:
    if constraints is None:
        return []
    if isinstance(constraints, str):
        return [constraints]
    # The items of these are no constraints, and the error about an item would be misleading.
    if isinstance(constraints, (bytes, Mapping)) or not isinstance(constraints, Iterable):
        items = [constraints]
    else:
        items = list(constraints)
    for item in items:
        if not isinstance(item, str):
            raise ConstraintError(
                f"a constraint is a string, not {item!r} of type {type(item).__name__}",
                hint="Write a string such as 'state = FINISHED', or a list of such strings.",
            )
    return cast("list[str]", items)


# --- From what was written to the tree ---------------------------------------------------------------------


def _resolve(syntax: Syntax, resolver: _Resolver) -> Node:
    if isinstance(syntax, Negation):
        return Not(_resolve(syntax.part, resolver))
    if isinstance(syntax, Junction):
        parts = tuple(_resolve(part, resolver) for part in syntax.parts)
        return All(parts) if syntax.word == "and" else AnyOf(parts)
    return resolver.comparison(syntax)


@attrs.frozen
class _Resolver:
    """Looks up the names and converts the values of one constraint."""

    text: str
    names: Names

    def comparison(self, syntax: Comparison) -> Node:
        entry = self.entry(syntax.name, syntax.at)
        if "~" in syntax.operator:
            test = lacks_pattern if syntax.operator.startswith("!") else matches_pattern
            flags = re.IGNORECASE if syntax.operator.endswith("*") else re.RegexFlag(0)
            return Test(entry, test, self.pattern(entry, syntax.operands[0], flags))
        rights = [self.right(entry, operand) for operand in syntax.operands]
        if compare := COMPARISONS.get(syntax.operator):
            return Test(entry, compare, rights[0])
        if syntax.operator == "not in":
            return All(tuple(Test(entry, unequal, right) for right in rights))
        parts = tuple(Test(entry, equal, right) for right in rights)
        if any(isinstance(right, Entry) for right in rights):
            return AnyOf(parts)
        return In(parts, entry, tuple(rights))

    def entry(self, written: str, at: int) -> Entry:
        """Return the entry that is written at an offset, or raise the error that helps to find it."""
        found = self.candidates(written)
        if len(found) == 1:
            return found[0]
        if found:
            raise self.ambiguous(written, found, at)
        name = _normal(written)
        prefix, _, rest = name.rpartition(".")
        if prefix in ("runs", "jobs"):
            here, there = ("runs", "jobs") if prefix == "runs" else ("jobs", "runs")
            hint = nearest(name, [f"{here}.{known}" for known in self.names.of(cast(Kind, here))])
            if rest in self.names.of(cast(Kind, there)):
                hint = f"There is {there}.{rest}. {hint}"
        else:
            hint = nearest(rest, [*self.names.runs, *self.names.jobs])
        raise constraint_error(f"there is no entry {written!r}", self.text, at, hint)

    def candidates(self, written: str) -> list[Entry]:
        prefix, _, name = _normal(written).rpartition(".")
        kinds: list[Kind] = [kind for kind in ("runs", "jobs") if prefix in ("", kind)]
        return [Entry(kind, name, self.names.of(kind)[name]) for kind in kinds if name in self.names.of(kind)]

    def ambiguous(self, written: str, found: list[Entry], at: int, more: str = "") -> ConstraintError:
        choices = " or ".join(f"{entry.kind}.{entry.name}" for entry in found)
        return constraint_error(
            f"{written!r} is ambiguous: runs and jobs both have it", self.text, at, f"Write {choices}{more}."
        )

    def right(self, entry: Entry, operand: Operand) -> Any:
        """Return another entry, None, or the operand as a value of the entry's type."""
        if not operand.quoted:
            if operand.text.lower() in ("none", "null"):
                return None
            if NAME.fullmatch(operand.text):
                found = self.candidates(operand.text)
                if len(found) > 1:
                    raise self.ambiguous(operand.text, found, operand.at, ", or quote it if it is a value")
                if found:
                    return found[0]
        if entry.type is None:
            return operand.text if operand.quoted else _guess(operand.text)
        try:
            return _convert(operand.text, entry.type)
        except Exception as error:  # the type may be of anybody's making
            raise constraint_error(
                f"{entry.kind}.{entry.name} is of type {entry.type.__name__}, and {operand.text!r} is not",
                self.text,
                operand.at,
                _EXAMPLES.get(entry.type),
            ) from error

    def pattern(self, entry: Entry, operand: Operand, flags: re.RegexFlag) -> re.Pattern[str]:
        try:
            return re.compile(operand.text, flags)
        except (re.error, OverflowError) as error:
            raise constraint_error(
                f"{entry.kind}.{entry.name} is compared with {operand.text!r}, which is no regular expression"
                f" ({error})",
                self.text,
                operand.at,
            ) from error


def _normal(written: str) -> str:
    return re.sub(r"\s", "", written).lower()


# --- From text to values -----------------------------------------------------------------------------------

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EXAMPLES: Mapping[type, str] = {
    bool: "Write true or false, yes or no, 1 or 0.",
    int: "Write a whole number such as 3.",
    float: "Write a number such as 1.5 or -2e-3.",
    list: "Write a list such as [1, 2] or ['a', 'b'].",
    dict: "Write a dictionary such as {'a': 1}.",
}


def _guess(text: str) -> int | float | str:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE):
        return text
    try:
        return int(text)
    except ValueError:
        return float(text)


def _convert(text: str, to: type) -> Any:
    """Return ``text`` as a value of a type; whatever is raised means that it is none."""
    if issubclass(to, bool):
        return _WORDS[text.strip().lower()]
    if to is int:
        return _integer(text)
    if issubclass(to, (list, tuple, set, frozenset, dict)):
        try:
            value = json.loads(text)
        except ValueError:
            value = ast.literal_eval(text)
        if isinstance(value, dict) != issubclass(to, dict):
            raise ValueError(text)
        return to(value)
    if hasattr(to, "fromisoformat"):  # datetime, date, time
        return to.fromisoformat(text)
    return cast(Callable[[str], Any], to)(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)
