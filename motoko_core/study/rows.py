"""A compact table of scalar values: what the index remembers of 100,000 runs and their jobs.

A row is a tuple: the number of its shape (the names of its values, which many rows share), the id of the
database object, and the values; instead of one that is no scalar, its digest. Strings that many rows have in
common are kept once. A tuple of nothing but atoms is no business of the garbage collector, which would
otherwise spend more time than a selection takes.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from persistent import Persistent
from ZODB.utils import p64

from motoko_core.study.plain_objects import Reference

logger = logging.getLogger("motoko.index")

_SCALARS = (str, int, float, bool, complex, type(None), datetime.datetime)
_TYPES = frozenset(_SCALARS)
#: Where the values begin in a stored row.
_FIRST = 2
#: Names of entries such as run_path hold another string in each row; nobody gains by looking for it.
_SHARED_STRINGS = 250

Values = Iterable[tuple[str, Any]]
Positions = dict[str, int]
Stored = tuple[Any, ...]
#: Stands in a row for a value that is no scalar; bytes are none themselves.
_Digest = bytes


class _Digester(pickle.Pickler):
    def persistent_id(self, obj: Any) -> bytes | None:
        # Another object of the database: it changes by itself, and all of them may hang on it.
        if isinstance(obj, Persistent):
            oid: bytes = obj._p_oid
            return oid
        return p64(obj.oid) if isinstance(obj, Reference) else None


def _digest(value: Any) -> _Digest:
    """Tells a value that a row does not hold from another: a rescan has nothing else to go by."""
    stream = io.BytesIO()
    try:
        _Digester(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001 - ZODB stores more than pickle does, a weak reference for example
        logger.debug("a value of %s cannot be told from another one", type(value))
    return hashlib.blake2b(stream.getbuffer(), digest_size=8).digest()


class Unknown(Exception):
    """A row does not hold this value, because it is not a scalar."""


class Row(Mapping[str, Any]):
    """The scalar values of one run or job, by name in lower case."""

    __slots__ = ("_positions", "_stored")

    def __init__(self, positions: Positions, stored: Stored) -> None:
        self._positions = positions
        self._stored = stored

    def __getitem__(self, name: str) -> Any:
        value = self._stored[self._positions[name]]
        if type(value) is _Digest:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        stored = self._stored
        return (name for name, position in self._positions.items() if type(stored[position]) is not _Digest)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


class Rows(Mapping[int, Row]):
    """Id -> row."""

    def __init__(self) -> None:
        self._stored: dict[int, Stored] = {}
        self._shapes: list[Positions] = []
        self._shape_of: dict[tuple[str, ...], int] = {}
        self._strings: dict[str, dict[str, str]] = {}
        #: The strings that many rows have in common, for each value of each shape.
        self._shared: list[list[dict[str, str]]] = []
        #: No id that was ever in the table is lower, or higher.
        self.lowest, self.highest = 1, 0
        #: Names that any row had as an attribute.
        self._attributes: set[str] = set()

    def __getitem__(self, key: int) -> Row:
        return self._row(self._stored[key])

    def _row(self, stored: Stored) -> Row:
        return Row(self._shapes[stored[0]], stored)

    def __iter__(self) -> Iterator[int]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, key: object) -> bool:
        return key in self._stored

    def pack(self, oid: bytes | None, entries: Values, attributes: Values = ()) -> Stored:
        """Make a row to be stored; of two values with one name, the later one counts, and the entry.

        :param oid: of the run or job in the database; None if it must be looked up.
        """
        row = {name: self._compact(name, value) for name, value in attributes}
        self._attributes.update(row)
        for name, value in entries:
            row[name] = self._compact(name, value)
        return (self._shape(tuple(row)), oid, *row.values())

    def pack_entries(self, oid: bytes | None, names: tuple[str, ...], values: Sequence[Any]) -> Stored:
        """The same for one that has entries alone, of which no two have one name."""
        shape = self._shape(names)
        shared = self._shared[shape]
        row = [
            value
            if (kind := type(value)) is not str and kind in _TYPES
            else strings.get(value) or self._compact(name, value)
            if kind is str
            else self._compact(name, value)
            for name, value, strings in zip(names, values, shared, strict=True)
        ]
        return (shape, oid, *row)

    def _shape(self, names: tuple[str, ...]) -> int:
        shape = self._shape_of.get(names)
        if shape is None:
            shape = self._shape_of[names] = len(self._shapes)
            self._shapes.append({name: position for position, name in enumerate(names, _FIRST)})
            self._shared.append([self._strings.setdefault(name, {}) for name in names])
        return shape

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
        return _digest(value)

    def drop(self, key: int) -> None:
        """Remove a row, if it is there."""
        self._stored.pop(key, None)

    def value(self, key: int, name: str) -> Any:
        """One value of a row; None if the row lacks it, or is not there, or the value is no scalar."""
        stored = self._stored.get(key)
        return None if stored is None else self.value_in(stored, name)

    def value_in(self, stored: Stored, name: str) -> Any:
        """The same of a row that :meth:`pack` has made."""
        position = self._shapes[stored[0]].get(name)
        value = None if position is None else stored[position]
        return None if type(value) is _Digest else value

    def is_other(self, key: int, stored: Stored | None) -> bool:
        """Whether a row that :meth:`pack` has made, or None for none, differs from the one in the table."""
        mine = self._stored.get(key)
        if mine == stored:
            return False
        return mine is None or stored is None or self._named(mine) != self._named(stored)

    def _named(self, stored: Stored) -> dict[str, Any]:
        """The values of a stored row, with the digests of those that it does not hold."""
        return {name: stored[position] for name, position in self._shapes[stored[0]].items()}

    def oid(self, key: Any) -> bytes | None:
        """The id of a row's object in the database; None if it is not known."""
        stored = self._stored.get(key)
        return None if stored is None else stored[1]

    def getter(self, key: int) -> Callable[[str], Any]:
        """Look up values of a row as constraints do: KeyError for what the object lacks.

        :raises Unknown: from the look-up: the object has the value, and the row does not hold it.
        """
        stored = self._stored[key]
        positions = self._shapes[stored[0]]

        def get(name: str) -> Any:
            value = stored[positions[name]]
            if type(value) is _Digest:
                raise Unknown(name)
            return value

        return get

    def entry_getter(self, key: int) -> Callable[[str], Any]:
        """Look up the entries of a row alone.

        :raises Unknown: also for a name that some object has as an attribute, which hides an entry, differs
            with the case of the name, and is not found as an item.
        """
        get, attributes = self.getter(key), self._attributes

        def get_entry(name: str) -> Any:
            if name in attributes:
                raise Unknown(name)
            return get(name)

        return get_entry

    def differing(self, other: Rows) -> set[int]:
        """Ids of the rows that only one of two tables has, or that differ."""
        mine, theirs = self._stored, other._stored
        return (mine.keys() ^ theirs.keys()) | {
            key for key in mine.keys() & theirs.keys() if self._named(mine[key]) != other._named(theirs[key])
        }
