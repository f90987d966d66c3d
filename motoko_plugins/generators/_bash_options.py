"""``bash_options`` of motoko.yaml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs

from motoko_core.errors import ConfigError, nearest


def _processors() -> int:
    with suppress(AttributeError):  # only Linux knows which processors this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"{attribute.name} = {value!r} is not a positive whole number",
            where="bash_options",
            hint="Write for example slots=4, or leave it out to use every processor.",
        )


def _boolean(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} = {value!r} is neither true nor false", where="bash_options")


@attrs.frozen(kw_only=True)
class BashOptions:
    """``bash_options`` of motoko.yaml.

    :param slots: processors' worth of runs side by side; by default as many as this process may use.
    :param stdout: the jobs write to the launcher's own output instead of files in the run directory.
    :param stop_on_error: accepted because BlackDynamite has it, without effect: what becomes of a failed
        run is decided by the error handlers.
    """

    slots: int = attrs.field(factory=_processors, validator=_positive, metadata={"shared": True})
    stdout: bool = attrs.field(default=False, validator=_boolean)
    stop_on_error: bool = attrs.field(default=False, validator=_boolean)

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> BashOptions:
        """Make options of the list form: ``slots=4``, ``--slots=4``, ``--slots 4``, ``--stdout``.

        :raises ConfigError: an unknown name (the nearest is suggested), or a value that cannot be.
        """
        values: dict[str, Any] = {}
        for string in strings:
            name, value = _split(str(string))  # YAML may have made a number or a mapping of it
            if name not in attrs.fields_dict(cls):
                hint = nearest(name, attrs.fields_dict(cls))
                raise ConfigError(f"unknown option {string!r}", where="bash_options", hint=hint)
            values[name] = _parse(name, value)
        return cls(**values)


def _split(string: str) -> tuple[str, str | None]:
    """Return name and value of one option; the value is None for a bare flag."""
    name, *rest = string.strip().lstrip("-").replace("=", " ", 1).split(maxsplit=1) or [""]
    return name.replace("-", "_"), rest[0].strip() if rest else None


def _parse(name: str, value: str | None) -> object:
    """Return the value as its type, or as it is if it is not of that type, for the validator to refuse."""
    if name == "slots":
        return int(value) if value is not None and value.isdecimal() else value
    if value is None:
        return True
    return {"true": True, "false": False}.get(value.lower(), value)
