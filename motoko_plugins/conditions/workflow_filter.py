"""Events that are functions of a study: ``event(workflow, task_manager)``."""

from __future__ import annotations

from typing import Any, cast

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, WorkflowCondition
from motoko_plugins.conditions._outside import looks_outside
from motoko_plugins.conditions._signature import WORKFLOW_FILTER, describe, function_form


@hookimpl
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """a function with the parameters (workflow, task_manager), asked for each task manager"""
    if function_form(event, event_name) != WORKFLOW_FILTER:
        return None
    return WorkflowCondition(
        description=f"workflow filter {describe(event)}",
        evaluate=cast(Any, event),
        outside=looks_outside(event),
    )
