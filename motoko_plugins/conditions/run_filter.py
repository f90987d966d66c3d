"""Events that are functions of a run: ``event(run, job)``."""

from __future__ import annotations

from typing import Any, cast

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, RunCondition
from motoko_plugins.conditions._outside import looks_outside
from motoko_plugins.conditions._signature import RUN_FILTER, describe, function_form


@hookimpl
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """a function with the parameters (run, job), asked for each run"""
    if function_form(event, event_name) != RUN_FILTER:
        return None
    return RunCondition(
        description=f"run filter {describe(event)}", filter=cast(Any, event), outside=looks_outside(event)
    )
