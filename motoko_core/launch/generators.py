"""The job generators of a workflow's task managers, with their options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from motoko_core.errors import ConfigError, MotokoError, nearest
from motoko_core.launch.service import Service

if TYPE_CHECKING:
    from motoko_core.config import GeneratorOptions, WorkflowConfig
    from motoko_core.interfaces import JobGenerator
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: What a field of a generator's ``Options`` has in its metadata if it holds for all that one launcher
#: executes, and cannot differ between task managers.
SHARED = "shared"


@contextmanager
def located(configuration: WorkflowConfig, key: str, task_manager: str | None = None) -> Iterator[None]:
    """Let errors name motoko.yaml, and the line and the key in it that they come from.

    :param task_manager: the key is among this one's settings; None: at the top of the file.
    """
    try:
        yield
    except MotokoError as error:
        if str(configuration.path) not in (error.where or ""):
            inside = error.where or key
            if task_manager is not None:
                full = f"task_managers.{task_manager}.{key}"
                inside = full if inside == key else f"{full}: {inside}"
            error.where = f"{configuration.where(key, task_manager)}: {inside}"
        raise


def generator_name(
    workflow: Workflow, manager: TaskManager | None = None, override: str | None = None
) -> str:
    """The job generator of a task manager's runs (None: of those whose task manager names none).

    :param override: the one of the command line, which holds for all.
    """
    configuration = workflow.configuration
    own = configuration.task_managers[manager.study].generator if manager else None
    return (override or own or configuration.generator).removesuffix("Coat")


def make_generator(workflow: Workflow, name: str | None = None) -> JobGenerator:
    """The job generator of motoko.yaml, or another one by its name, with the workflow's options.

    :raises ~motoko_core.errors.ConfigError: it is unknown, or its options are wrong.
    """
    kind = _kind(workflow, None, name)
    configuration, name = workflow.configuration, generator_name(workflow, None, name)
    with located(configuration, f"{name}_options"):
        options = _options(kind, name, configuration.generator_options.get(name, {}))
    return kind(options)


def services(
    workflow: Workflow, managers: Sequence[TaskManager], override: str | None = None
) -> dict[TaskManager, Service]:
    """Task manager -> the generator of its runs, the generator's options as they hold for them, and limits.

    There is one generator of each name, whose own options are the workflow's.

    :param override: a generator for all task managers, whatever motoko.yaml says.
    :raises ~motoko_core.errors.ConfigError: a generator is unknown, or options are wrong.
    """
    made: dict[str, JobGenerator] = {}
    found = {}
    for manager in managers:
        name = generator_name(workflow, manager, override)
        kind = _kind(workflow, manager, override)
        if name not in made:
            made[name] = make_generator(workflow, name)
        limits = workflow.configuration.task_managers[manager.study]
        found[manager] = Service(
            generator=made[name],
            name=name,
            settings=make_settings(workflow, manager, name, kind),
            slots=limits.slots,
            max_running=limits.max_running,
        )
    return found


def other_service(workflow: Workflow, manager: TaskManager, name: str) -> Service:
    """For jobs that another generator than motoko.yaml's has got: nothing is launched through it any more."""
    return services(workflow, [manager], name)[manager]


def make_settings(workflow: Workflow, manager: TaskManager, name: str, kind: type[JobGenerator]) -> Any:
    """A generator's options for the runs of one task manager: the workflow's, then the task manager's.

    Of two lists, the second comes behind the first, and what is given twice holds as it was given last. Of
    two mappings, the second one's settings win.

    :param name: the generator's name.
    :return: an instance of the generator's ``Options``.
    :raises ~motoko_core.errors.ConfigError: the options are wrong.
    """
    configuration, key = workflow.configuration, f"{name}_options"
    common = configuration.generator_options.get(name, {})
    own = configuration.task_managers[manager.study].generator_options.get(name, {})
    with located(configuration, key):
        options = _options(kind, name, common)
    if not own:
        return options
    with located(configuration, key, manager.study):
        settings = _options(kind, name, _merged(configuration, key, common, own))
        _refuse_other_shared(key, options, settings)
    return settings


def _merged(
    configuration: WorkflowConfig, key: str, common: GeneratorOptions, own: GeneratorOptions
) -> GeneratorOptions:
    if not common:
        return own
    if isinstance(common, list) and isinstance(own, list):
        return [*common, *own]
    if isinstance(common, dict) and isinstance(own, dict):
        return {**common, **own}
    raise ConfigError(
        f"this is a {_form(own)}, and the {key} of the whole workflow are a {_form(common)} "
        f"({configuration.where(key)})",
        hint="Write both as lists, or both as mappings.",
    )


def _form(options: GeneratorOptions) -> str:
    return "list" if isinstance(options, list) else "mapping"


def _refuse_other_shared(key: str, options: Any, settings: Any) -> None:
    for field in attrs.fields(type(settings)) if attrs.has(type(settings)) else ():
        if field.metadata.get(SHARED) and getattr(settings, field.name) != getattr(options, field.name):
            raise ConfigError(
                f"{field.name!r} holds for all that a launcher executes, not for one task manager",
                hint=f"Give it in the {key} at the top of the file. A task manager has limits of its own: "
                "slots: 4 (processors) and max_running: 10 (runs), beside its options.",
            )


def _kind(workflow: Workflow, manager: TaskManager | None, override: str | None) -> type[JobGenerator]:
    configuration = workflow.configuration
    name = generator_name(workflow, manager, override)
    if override:
        return workflow.plugins.generator(name, configuration.directory)
    own = manager is not None and configuration.task_managers[manager.study].generator
    with located(configuration, "generator", manager.study if manager and own else None):
        return workflow.plugins.generator(name, configuration.directory)


def _options(kind: type[JobGenerator], name: str, given: GeneratorOptions) -> Any:
    try:
        return kind.Options(**given) if isinstance(given, dict) else kind.Options.from_strings(given)
    except TypeError as error:
        known = attrs.fields_dict(kind.Options) if attrs.has(kind.Options) else {}
        unknown = next((key for key in given if key not in known), str(error))
        raise ConfigError(
            f"unknown option {unknown!r}", where=f"{name}_options", hint=nearest(str(unknown), known)
        ) from error
