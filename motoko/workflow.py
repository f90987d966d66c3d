"""Workflows: the documented import path. The code stands in :mod:`motoko_core.workflow`."""

from motoko_core.workflow import (
    ActionRegistry,
    EventCallback,
    EventCondition,
    Workflow,
    WorkflowVars,
    event,
    no_action,
)

__all__ = [
    "ActionRegistry",
    "EventCallback",
    "EventCondition",
    "Workflow",
    "WorkflowVars",
    "event",
    "no_action",
]
