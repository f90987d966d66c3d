"""The error handler ``escalate``: execute a failed run again, with more memory, more time, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Decision, ErrorHandler, Failure, Retry
from motoko_plugins.error_handlers._settings import may_run_again, reason_set


def _valid_steps(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    hint = "Write a list of changed run entries, one per attempt, such as [{nproc: 4}, {nproc: 8}]."
    if not isinstance(value, (list, tuple)) or not value:
        raise ConfigError(f"steps = {value!r} is not a list of steps", hint=hint)
    for number, step in enumerate(value, 1):
        if not isinstance(step, Mapping) or not step or not all(isinstance(key, str) for key in step):
            raise ConfigError(f"step {number} is {step!r}, not a mapping of run entries", hint=hint)


@attrs.frozen(kw_only=True)
class EscalateHandler(ErrorHandler):
    """Executes a run again after its n-th failed attempt, with the run entries of the n-th step.

    After the last step it has no answer, and the next handler is asked.

    :param steps: the entries that change; those that a step does not name keep the value that they have.
    :param reasons: the reasons that it is for; None for every failure but CANCELLED.
    """

    steps: Sequence[Mapping[str, Any]] = attrs.field(validator=_valid_steps)
    reasons: frozenset[str] | None = attrs.field(
        default=frozenset({"OUT_OF_MEMORY", "TIMEOUT"}), converter=reason_set
    )

    def decide(self, failure: Failure) -> Decision:
        if failure.attempt > len(self.steps) or not may_run_again(self.reasons, failure):
            return None
        return Retry(changes=dict(self.steps[failure.attempt - 1]))


@hookimpl
def motoko_error_handlers() -> Mapping[str, type[ErrorHandler]]:
    return {"escalate": EscalateHandler}
