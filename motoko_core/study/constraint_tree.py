"""The tree of a constraint: names looked up, values converted, compiled to one function."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["runs", "jobs"]
Getter: TypeAlias = Callable[[str], Any]
Predicate: TypeAlias = Callable[[Getter, Getter], bool]

# Only for these types does the hash find whatever `==` would: numpy's float32 is one that differs.
_HASHED = frozenset([int, float, str, bool])


@attrs.frozen
class Entry:
    kind: Kind
    name: str
    type: type | None

    def compile(self) -> Callable[[Getter, Getter], Any]:
        """Return what reads the entry of a run and its job."""
        name = self.name

        def of_run(run: Getter, job: Getter) -> Any:
            try:
                return run(name)
            except KeyError:
                return None

        def of_job(run: Getter, job: Getter) -> Any:
            return of_run(job, run)

        return of_run if self.kind == "runs" else of_job


class Node:
    """A part of the tree. What `required` says by default is always true: any value may do."""

    def compile(self) -> Predicate:
        raise NotImplementedError

    def required(self, kind: Kind, name: str) -> frozenset[Any] | None:
        return None

    @property
    def is_exact(self) -> bool:
        """Whether a match is just what has one of the required values in each entry that is read."""
        return False

    def reads(self) -> Iterable[Entry]:
        raise NotImplementedError


@attrs.frozen
class All(Node):
    parts: tuple[Node, ...]

    def compile(self) -> Predicate:
        predicates = tuple(part.compile() for part in self.parts)

        def all_hold(run: Getter, job: Getter) -> bool:
            for predicate in predicates:  # noqa: SIM110 - all() and its generator take twice as long
                if not predicate(run, job):
                    return False
            return True

        return all_hold

    def required(self, kind: Kind, name: str) -> frozenset[Any] | None:
        sets = [values for part in self.parts if (values := part.required(kind, name)) is not None]
        return frozenset.intersection(*sets) if sets else None

    @property
    def is_exact(self) -> bool:
        return all(part.is_exact for part in self.parts)

    def reads(self) -> Iterable[Entry]:
        return [entry for part in self.parts for entry in part.reads()]


@attrs.frozen
class AnyOf(All):
    def compile(self) -> Predicate:
        predicates = tuple(part.compile() for part in self.parts)

        def any_holds(run: Getter, job: Getter) -> bool:
            for predicate in predicates:  # noqa: SIM110 - any() and its generator take twice as long
                if predicate(run, job):
                    return True
            return False

        return any_holds

    def required(self, kind: Kind, name: str) -> frozenset[Any] | None:
        union: frozenset[Any] = frozenset()
        for part in self.parts:
            values = part.required(kind, name)
            if values is None:
                return None
            union |= values
        return union

    @property
    def is_exact(self) -> bool:
        # Sets of values, one for each entry, cannot say `state = A or runs.id = 1`.
        return super().is_exact and len(set(self.reads())) == 1


@attrs.frozen
class Not(Node):
    part: Node

    def compile(self) -> Predicate:
        predicate = self.part.compile()
        return lambda run, job: not predicate(run, job)

    def reads(self) -> Iterable[Entry]:
        return self.part.reads()


@attrs.frozen
class Test(Node):
    """An entry compared with a value or with another entry; None on the left is for the test to judge."""

    entry: Entry
    test: Callable[[Any, Any], bool]
    right: Any

    def compile(self) -> Predicate:
        left, test, right = self.entry.compile(), self.test, self.right
        if isinstance(right, Entry):
            other = right.compile()
            # Two entries without a value are not equal; only the literal None asks for that.
            for_equality = test is equal

            def compare_entries(run: Getter, job: Getter) -> bool:
                value = left(run, job)
                return not (for_equality and value is None) and test(value, other(run, job))

            return compare_entries
        return lambda run, job: test(left(run, job), right)

    def required(self, kind: Kind, name: str) -> frozenset[Any] | None:
        if self.test is not equal or isinstance(self.right, Entry):
            return None
        if (self.entry.kind, self.entry.name) != (kind, name):
            return None
        try:
            return frozenset([self.right])
        except TypeError:  # a list or a dictionary
            return None

    @property
    def is_exact(self) -> bool:
        # Not None: a table may not tell a run without the entry from one whose value it does not hold.
        return self.test is equal and type(self.right) in _HASHED

    def reads(self) -> Iterable[Entry]:
        return [item for item in (self.entry, self.right) if isinstance(item, Entry)]


@attrs.frozen
class In(AnyOf):
    """An entry equal to one of many values; the parts say the same, one value each, for `required`."""

    entry: Entry
    values: tuple[Any, ...]

    def compile(self) -> Predicate:
        left, values = self.entry.compile(), self.values
        exact = _HASHED | {type(None)}
        table = frozenset(value for value in values if type(value) in exact)
        odd = tuple(value for value in values if type(value) not in exact)

        def is_in(run: Getter, job: Getter) -> bool:
            value = left(run, job)
            if type(value) not in exact:
                return any(equal(value, known) for known in values)
            return value in table or any(equal(value, known) for known in odd)

        return is_in


# --- Comparing: stored values may be of any type, so nothing may be raised ---------------------------------

# What comparing raises: for unlike types TypeError, for arrays ValueError, for odd numbers ArithmeticError.
_INCOMPARABLE = (TypeError, ValueError, ArithmeticError)


def equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)  # bool: numpy has its own
    except _INCOMPARABLE:
        return False


def unequal(left: Any, right: Any) -> bool:
    return not equal(left, right)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        try:
            return bool(compare(left, right))
        except _INCOMPARABLE:
            return False

    return test


def matches_pattern(value: Any, pattern: re.Pattern[str]) -> bool:
    return value is not None and pattern.search(str(value)) is not None


def lacks_pattern(value: Any, pattern: re.Pattern[str]) -> bool:
    return value is not None and pattern.search(str(value)) is None


COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": equal,
    "==": equal,
    "!=": unequal,
    "<": _ordered(operator.lt),
    ">": _ordered(operator.gt),
    "<=": _ordered(operator.le),
    ">=": _ordered(operator.ge),
}
