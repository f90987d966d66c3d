"""Events that are lists of constraints, which must all hold: ``["runs.id < 3", "state = FINISHED"]``."""

from __future__ import annotations

from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, RunCondition

_HINT = 'Write one such as ["runs.id < 3", "state = FINISHED"].'


@hookimpl
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """a list of constraint strings such as ["runs.id < 3", "state = FINISHED"]; all must hold"""
    if not isinstance(event, (list, tuple)):
        return None
    where = f"action {event_name!r}"
    if not event:
        raise ConfigError(f"the event {event!r} is a list of no constraints", where=where, hint=_HINT)
    for number, item in enumerate(event, 1):
        if not isinstance(item, str) or not item.strip():
            raise ConfigError(
                f"item {number} of the event is {item!r}, not a constraint string", where=where, hint=_HINT
            )
    # A copy: the caller's list may grow later.
    return RunCondition(description=" and ".join(f'"{item}"' for item in event), constraints=tuple(event))
