"""The values of a run or a job: its entries, and the attributes that scripts have set on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

#: What BlackDynamite's objects keep in their instance dictionaries beside the attributes that scripts set.
_OWN_ATTRIBUTES = frozenset(
    {"entries", "key_string", "optional", "types", "operators", "configfiles", "quantities", "runs"}
)


def is_value(name: str) -> bool:
    """Whether a name in the instance dictionary of a run or a job was put there by a script."""
    return name not in _OWN_ATTRIBUTES and not name.startswith("_")


def attributes_of(obj: Any) -> Iterator[tuple[str, Any]]:
    """What scripts have set on a run or a job that is no entry of it, as (name in lower case, value)."""
    obj._p_activate()  # reading __dict__ does not load a ghost
    return ((name.lower(), value) for name, value in obj.__dict__.items() if is_value(name))


def values_of(obj: Any) -> Iterator[tuple[str, Any]]:
    """All values of a run or a job, as (name in lower case, value); an entry comes after its namesake."""
    yield from attributes_of(obj)
    yield from obj.entries.items()


def getter(obj: Any) -> Callable[[str], Any]:
    """Look up a value by its name as constraints do; KeyError if the object lacks it."""
    obj._p_activate()  # reading __dict__ does not load a ghost
    entries, attributes = obj.entries, obj.__dict__

    def get(name: str) -> Any:
        try:
            return entries[name]
        except KeyError:
            for attribute, value in attributes.items():
                if attribute.lower() == name and is_value(attribute):
                    return value
            raise

    return get


def prefetch(connection: Any, objects: Sequence[Any], *parts: str) -> None:
    """Have a server send runs or jobs, and some of the objects that they consist of, together."""
    _fetch(connection, objects)
    for part in parts:
        for obj in objects:
            obj._p_activate()  # reading __dict__ does not load a ghost
        _fetch(connection, [obj.__dict__.get(part) for obj in objects])


def _fetch(connection: Any, objects: Iterable[Any]) -> None:
    ghosts = [obj for obj in objects if getattr(obj, "_p_changed", 0) is None]
    if len(ghosts) > 1:
        connection.prefetch(ghosts)
