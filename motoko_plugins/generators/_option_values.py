"""Values of options that the generators for schedulers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from motoko_core.errors import ConfigError

Validator: TypeAlias = Callable[[object, "attrs.Attribute[Any]", object], None]


def module_names(value: Any) -> tuple[str, ...]:
    """Accept one name as well as a list of them."""
    items = value.split() if isinstance(value, str) else list(value or ())
    return tuple(str(item).strip() for item in items)


def whole(where: str) -> Validator:
    """A positive whole number.

    :param where: the options that it is in, such as ``slurm_options``.
    """

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{attribute.name} = {value!r} is not a positive whole number", where=where)

    return check


def seconds(where: str) -> Validator:
    """A positive number of seconds."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise ConfigError(
                f"{attribute.name} = {value!r} is not a positive number of seconds", where=where
            )

    return check
