"""Events that are functions of nothing that Motoko could watch: ``event()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, WorkflowCondition
from motoko_plugins.conditions._signature import describe, function_form


@hookimpl
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """a function without required parameters, asked on every tick"""
    if function_form(event, event_name) != ():
        return None
    function = cast(Callable[[], Any], event)
    return WorkflowCondition(
        description=f"function {describe(event)}",
        # With no arguments it can only look at the clock or at the outside world.
        outside=True,
        evaluate=lambda workflow, task_manager: function(),
    )
