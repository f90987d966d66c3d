"""What the forms of an event that are functions have in common: telling them apart by their parameters."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

from motoko_core.errors import ConfigError

#: The forms that take arguments. Decided by name, because a filter is a plain function without a mark.
RUN_FILTER = ("run", "job")
WORKFLOW_FILTER = ("workflow", "task_manager")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def function_form(event: object, event_name: str) -> tuple[str, ...] | None:
    """Say how a function wants to be called: with the names of one of the forms, or with ``()``.

    :returns: None if ``event`` is not a function, or needs other arguments.
    :raises ConfigError: it is a coroutine function.
    """
    # A class is callable too, but calling one makes an object, which is always true.
    if not callable(event) or isinstance(event, type):
        return None
    function = _underlying(event)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"the event {describe(event)} is a coroutine function",
            where=f"action {event_name!r}",
            hint="Conditions are plain functions: write `def`, and await in the action's callback.",
        )
    try:
        parameters = list(inspect.signature(event).parameters.values())
    except (TypeError, ValueError):
        return None  # some functions written in C have no signature
    for form in (RUN_FILTER, WORKFLOW_FILTER):
        head, rest = parameters[: len(form)], parameters[len(form) :]
        if tuple(p.name for p in head) == form and all(p.kind in _POSITIONAL for p in head):
            return None if _required(rest) else form
    return None if _required(parameters) else ()


def describe(event: Any) -> str:
    """Name a function and the place where it was written: ``ready (orchestrator.py:12)``."""
    while isinstance(event, functools.partial):
        event = event.func
    event = inspect.unwrap(event)  # below decorators and caches
    name = getattr(event, "__name__", type(event).__name__)
    code = getattr(_underlying(event), "__code__", None)
    return f"{name} ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else name


def _required(parameters: list[inspect.Parameter]) -> bool:
    return any(p.default is p.empty and p.kind not in _VARIADIC for p in parameters)


def _underlying(event: Any) -> Any:
    """Return the function below partials, bound methods and objects with ``__call__``."""
    while isinstance(event, functools.partial):
        event = event.func
    if not inspect.isroutine(event):
        event = type(event).__call__
    return getattr(event, "__func__", event)
