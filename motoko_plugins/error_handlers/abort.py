"""The error handler ``abort``: any failure ends the workflow."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Abort, Decision, ErrorHandler, Failure


@attrs.frozen(kw_only=True)
class AbortHandler(ErrorHandler):
    """Ends the workflow at the first failure that no handler before it took."""

    def decide(self, failure: Failure) -> Decision:
        code = "" if failure.exit_code is None else f", exit code {failure.exit_code}"
        return Abort(f"{failure.task} failed: {failure.reason}{code} (attempt {failure.attempt})")


@hookimpl
def motoko_error_handlers() -> Mapping[str, type[ErrorHandler]]:
    return {"abort": AbortHandler}
