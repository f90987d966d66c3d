"""Settings that several error handlers have, and how they are checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from motoko_core.errors import ConfigError, nearest
from motoko_core.interfaces import Failure

#: The reasons that a :class:`~motoko_core.interfaces.Failure` can have.
REASONS = frozenset(
    {
        "EXIT_CODE",
        "SIGNAL",
        "TIMEOUT",
        "OUT_OF_MEMORY",
        "NODE_FAIL",
        "PREEMPTED",
        "CANCELLED",
        "LOST",
        "SUBMIT",
        "UNKNOWN",
    }
)


def reason_set(value: Any) -> frozenset[str] | None:
    """Convert the setting ``reasons``: a list of reasons, or None for all of them.

    :raises ConfigError: it is something else, empty, or names a reason that does not exist.
    """
    if value is None:
        return None
    # A lone string would be taken for a list of letters.
    if not isinstance(value, (list, tuple, set, frozenset)) or not value:
        raise ConfigError(
            f"reasons = {value!r} is not a list of reasons", hint="Write one such as [TIMEOUT, NODE_FAIL]."
        )
    for reason in value:
        if not isinstance(reason, str) or reason not in REASONS:
            raise ConfigError(f"{reason!r} in reasons is not a reason", hint=nearest(str(reason), REASONS))
    return frozenset(value)


def concerns(reasons: frozenset[str] | None, failure: Failure) -> bool:
    """Whether ``failure`` has one of the reasons, of which None stands for all."""
    return reasons is None or failure.reason in reasons


def may_run_again(reasons: frozenset[str] | None, failure: Failure) -> bool:
    """The same for a handler that executes the run again.

    None stands for all but CANCELLED: somebody wanted the run to stop, and that is only undone by name.
    """
    return failure.reason != "CANCELLED" if reasons is None else failure.reason in reasons


def at_least(minimum: int, kind: type[int] | type[float]) -> Callable[..., None]:
    """Make a validator for numbers from ``minimum`` on; whole ones only, if ``kind`` is int."""
    accepted, words = ((int,), "a whole number") if kind is int else ((int, float), "a number")

    def validate(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        # True is an int to Python; to whoever reads `delay_s: yes` it is a mistake.
        number = isinstance(value, accepted) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < minimum:
            raise ConfigError(
                f"{attribute.name} = {value!r} is not {words} of at least {minimum}",
                hint=f"Without it, {attribute.name} is {attribute.default!r}.",
            )

    return validate
