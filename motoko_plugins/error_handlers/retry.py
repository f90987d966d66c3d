"""The error handler ``retry``: execute a failed run again, as it is."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Decision, ErrorHandler, Failure, Retry
from motoko_plugins.error_handlers._settings import at_least, may_run_again, reason_set


@attrs.frozen(kw_only=True)
class RetryHandler(ErrorHandler):
    """Executes a run again until it has been executed ``max_attempts`` times.

    :param max_attempts: executions in all, the first one included.
    :param delay_s: seconds before the second execution.
    :param backoff: each further delay is so many times the one before.
    :param reasons: the reasons that it is for; None for every failure but CANCELLED.
    """

    max_attempts: int = attrs.field(default=3, validator=at_least(1, int))
    delay_s: float = attrs.field(default=0.0, validator=at_least(0, float))
    backoff: float = attrs.field(default=1.0, validator=at_least(1, float))
    reasons: frozenset[str] | None = attrs.field(default=None, converter=reason_set)

    def decide(self, failure: Failure) -> Decision:
        if failure.attempt >= self.max_attempts or not may_run_again(self.reasons, failure):
            return None
        return Retry(delay_s=self.delay_s * self.backoff ** (failure.attempt - 1))


@hookimpl
def motoko_error_handlers() -> Mapping[str, type[ErrorHandler]]:
    return {"retry": RetryHandler}
