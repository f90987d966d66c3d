"""Every hook that a Motoko plugin can implement.

A plugin is a module or an object in the entry-point group ``motoko.plugins`` with functions marked
:data:`hookimpl`. A hook implementation may leave out arguments that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from motoko_core.interfaces import (
        CliCommand,
        Condition,
        ErrorHandler,
        Firing,
        JobGenerator,
        RunChange,
    )
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: Name of the pluggy project and of the entry-point group (with ``.plugins``).
PROJECT = "motoko"
ENTRY_POINT_GROUP = "motoko.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def motoko_condition_from_event(event: object, event_name: str) -> Condition | None:
    """Make a condition of what a user passed as ``event=`` to ``add_action``.

    Called once per registration, for each event that is not a :class:`~motoko_core.interfaces.Condition`
    already. Third-party plugins are asked before the built-ins; the first answer that is not None wins.

    :param event: anything; decide by its type or signature whether the form is yours.
    :param event_name: the name of the action, for messages and descriptions.
    :returns: a condition, or None: "not mine".
    :raises ~motoko_core.errors.ConfigError: the form is yours, but its content is wrong.
    """


@hookspec
def motoko_conditions() -> Mapping[str, Callable[..., Condition]]:  # type: ignore[empty-body]
    """Provide named conditions, made by ``workflow.condition(name, **settings)``.

    Called when the registry is first used. :returns: name -> factory taking the settings as keywords.
    """


@hookspec
def motoko_actions() -> Mapping[str, Callable[..., Callable[..., Any]]]:  # type: ignore[empty-body]
    """Provide named callbacks, made by ``workflow.action(name, **settings)``.

    Called when the registry is first used. :returns: name -> factory that takes the settings as keywords
    and makes a callback as ``add_action`` takes it.
    """


@hookspec
def motoko_generators() -> Mapping[str, type[JobGenerator]]:  # type: ignore[empty-body]
    """Provide job generators: what ``generator:`` in motoko.yaml and ``--generator`` can name.

    Called when the registry is first used. :returns: name -> class.
    """


@hookspec(firstresult=True)
def motoko_generator_from_name(name: str, directory: Path) -> type[JobGenerator] | None:
    """Make a generator of a name that no plugin provides, such as one of a file beside motoko.yaml.

    Called when a workflow names such a generator. Third-party plugins are asked before the built-ins; the
    first answer that is not None wins.

    :param name: as in ``generator:`` or ``--generator``, without BlackDynamite's ``Coat``.
    :param directory: where motoko.yaml is.
    :returns: a class, or None: "not mine".
    """


@hookspec
def motoko_error_handlers() -> Mapping[str, type[ErrorHandler]]:  # type: ignore[empty-body]
    """Provide error handlers: what ``error_handlers:`` in motoko.yaml and ``add_error_handler`` can name.

    Called when the registry is first used. :returns: name -> class.
    """


@hookspec
def motoko_cli_commands() -> Sequence[CliCommand]:  # type: ignore[empty-body]
    """Provide sub-commands of ``motoko``. Called when the command line is built."""


@hookspec
def motoko_workflow_started(workflow: Workflow) -> None:
    """Observe the start of an orchestrator, before its ``main`` is called.

    An exception in an observer is logged with the plugin's name and never stops the workflow; so it is
    for the three hooks below.
    """


@hookspec
def motoko_workflow_finished(workflow: Workflow, outcome: str) -> None:
    """Observe the end of an orchestrator. :param outcome: ``finished``, ``failed`` or ``interrupted``."""


@hookspec
def motoko_event_fired(workflow: Workflow, firing: Firing) -> None:
    """Observe a firing, before its callback is called (again, after a conflict)."""


@hookspec
def motoko_runs_changed(workflow: Workflow, task_manager: TaskManager, changes: Sequence[RunChange]) -> None:
    """Observe changed runs of one study, as they are seen by the orchestrator."""
