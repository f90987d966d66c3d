"""Events that are constraint strings: ``"state = FINISHED"``."""

from __future__ import annotations

from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, RunCondition


@hookimpl
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """a constraint string such as "state = FINISHED" """
    if not isinstance(event, str):
        return None
    if not event.strip():
        # It would select every run, which nobody means by leaving it empty.
        raise ConfigError(
            f"the event {event!r} is a constraint without content",
            where=f"action {event_name!r}",
            hint='Write one such as "state = FINISHED".',
        )
    return RunCondition(description=f'"{event}"', constraints=(event,))
