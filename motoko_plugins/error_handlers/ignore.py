"""The error handler ``ignore``: failed runs stay as they are, and the workflow goes on."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Decision, ErrorHandler, Failure, Ignore
from motoko_plugins.error_handlers._settings import concerns, reason_set


@attrs.frozen(kw_only=True)
class IgnoreHandler(ErrorHandler):
    """Leaves a run failed.

    :param reasons: the reasons that it is for; None for every failure.
    """

    reasons: frozenset[str] | None = attrs.field(default=None, converter=reason_set)

    def decide(self, failure: Failure) -> Decision:
        return Ignore() if concerns(self.reasons, failure) else None


@hookimpl
def motoko_error_handlers() -> Mapping[str, type[ErrorHandler]]:
    return {"ignore": IgnoreHandler}
