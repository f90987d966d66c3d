"""Task managers: the documented import path. The code stands in :mod:`motoko_core.task_manager`."""

from motoko_core.task_manager import RunList, TaskManager, TaskSelection, TaskSelectionEval

__all__ = ["RunList", "TaskManager", "TaskSelection", "TaskSelectionEval"]
