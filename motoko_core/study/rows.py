"""A compact table of scalar values: what the index remembers of 100,000 runs and their jobs.

A row is a tuple: the positions of its names, which rows with the same names share, the id of the database
object, and the values. Strings that many rows have in common are kept once.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_SCALARS = (str, int, float, bool, complex, type(None), datetime.datetime)
_TYPES = frozenset(_SCALARS)
#: Where the values begin in a stored row.
_FIRST = 2
#: Names of entries such as run_path hold another string in each row; nobody gains by looking for it.
_SHARED_STRINGS = 250

Positions = dict[str, int]
Stored = tuple[Any, ...]


class _Opaque:
    """Stands for a value that a row does not hold, because it is not a scalar."""

    def __repr__(self) -> str:
        return "<not a scalar>"


_OPAQUE: Any = _Opaque()


class Unknown(Exception):
    """A row does not hold this value, because it is not a scalar."""


class Row(Mapping[str, Any]):
    """The scalar values of one run or job, by name in lower case."""

    __slots__ = ("_stored",)

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Any:
        value = self._stored[self._stored[0][name]]
        if value is _OPAQUE:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        stored = self._stored
        return (name for name, position in stored[0].items() if stored[position] is not _OPAQUE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


class Rows(Mapping[int, Row]):
    """Id -> row."""

    def __init__(self) -> None:
        self._stored: dict[int, Stored] = {}
        self._shapes: dict[tuple[str, ...], Positions] = {}
        self._strings: dict[str, dict[str, str]] = {}
        #: No id that was ever in the table is lower, or higher.
        self.lowest, self.highest = 1, 0

    def __getitem__(self, key: int) -> Row:
        return Row(self._stored[key])

    def __iter__(self) -> Iterator[int]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, key: object) -> bool:
        return key in self._stored

    def pack(self, oid: bytes | None, values: Iterable[tuple[str, Any]]) -> Stored:
        """Make a row to be stored; of two values with one name, the later one counts.

        :param oid: of the run or job in the database; None if it must be looked up.
        """
        row = {name: self._compact(name, value) for name, value in values}
        names = tuple(row)
        positions = self._shapes.get(names)
        if positions is None:
            positions = self._shapes[names] = {name: i for i, name in enumerate(names, _FIRST)}
        return (positions, oid, *row.values())

    def put(self, key: int, stored: Stored) -> None:
        """Store a row that :meth:`pack` has made."""
        self._stored[key] = stored
        self.lowest, self.highest = min(key, self.lowest), max(key, self.highest)

    def _compact(self, name: str, value: Any) -> Any:
        if type(value) is str:
            strings = self._strings.setdefault(name, {})
            if len(strings) < _SHARED_STRINGS:
                return strings.setdefault(value, value)
            return strings.get(value, value)
        if type(value) in _TYPES or isinstance(value, _SCALARS):
            return value
        return _OPAQUE

    def drop(self, key: int) -> None:
        """Remove a row, if it is there."""
        self._stored.pop(key, None)

    def value(self, key: int, name: str) -> Any:
        """One value of a row; None if the row lacks it, or is not there, or the value is no scalar."""
        stored = self._stored.get(key)
        return None if stored is None else value_in(stored, name)

    def is_other(self, key: int, stored: Stored | None) -> bool:
        """Whether a row that :meth:`pack` has made, or None for none, differs from the one in the table."""
        mine = self._stored.get(key)
        return mine != stored and (mine is None or stored is None or Row(mine) != Row(stored))

    def oid(self, key: Any) -> bytes | None:
        """The id of a row's object in the database; None if it is not known."""
        stored = self._stored.get(key)
        return None if stored is None else stored[1]

    def getter(self, key: int) -> Callable[[str], Any]:
        """Look up values of a row as constraints do: KeyError for what the object lacks.

        :raises Unknown: from the look-up: the object has the value, and the row does not hold it.
        """
        stored = self._stored[key]
        positions = stored[0]

        def get(name: str) -> Any:
            value = stored[positions[name]]
            if value is _OPAQUE:
                raise Unknown(name)
            return value

        return get

    def differing(self, other: Rows) -> set[int]:
        """Ids of the rows that only one of two tables has, or that differ."""
        theirs = other._stored
        keys = self._stored.keys() | theirs.keys()
        return {key for key in keys if self.is_other(key, theirs.get(key))}


def value_in(stored: Stored, name: str) -> Any:
    """One value of a row; None if the row lacks it, or the value is no scalar."""
    position = stored[0].get(name)
    value = None if position is None else stored[position]
    return None if value is _OPAQUE else value
