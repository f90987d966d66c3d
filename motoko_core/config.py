"""motoko.yaml and bd.yaml, read, checked and frozen.

Whatever is wrong in one of the two files is a :class:`~motoko_core.errors.ConfigError` that names the
file, the line, the key, what was given, and what would be right.
"""

from __future__ import annotations

import copy
import keyword
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from motoko_core.errors import ConfigError, nearest
from motoko_core.study_config import (
    PARAMETER_TYPES,
    StudyConfig,
    copied,
    load_study_config,
    read_only,
    require_study_files,
)
from motoko_core.yaml_source import YamlSource, describe, spell

__all__ = [
    "PARAMETER_TYPES",
    "StudyConfig",
    "TaskManagerConfig",
    "WorkflowConfig",
    "load_study_config",
    "load_workflow_config",
    "require_study_files",
    "task_manager_name",
]

DEFAULT_POLL_INTERVAL_S = 2.0
DEFAULT_GENERATOR = "bash"

_WORKFLOW_KEYS = (
    "task_managers",
    "orchestrator",
    "aliases",
    "generator",
    "error_handlers",
    "poll_interval",
    "plugins",
)
_TASK_MANAGER_KEYS = ("host", "generator", "slots", "max_running")
_SKELETON = "Write at least:\n    task_managers:\n      <study>:\n    orchestrator: orchestrator.main"
_ORCHESTRATOR = "orchestrator: <module>.<function>, such as orchestrator.main."
_HOST = "Write zeo://<directory>, or zeo://<host>:<port> with a port from 1 to 65535."

#: ``<generator>_options`` as they were written: a list of options, or a mapping of settings.
GeneratorOptions: TypeAlias = "list[str] | dict[str, Any]"


@attrs.frozen(kw_only=True)
class TaskManagerConfig:
    """One entry of ``task_managers``.

    :param name: the task manager's name, and that of its study's directory.
    :param host: ``zeo://<absolute directory>`` or ``zeo://<host>:<port>``; None: the study's own directory.
    :param generator: name of the job generator of its runs, without BlackDynamite's ``Coat``; None: the
        workflow's.
    :param slots: how many processors' worth of its runs may be in a launcher's hand at once; None: no limit
        of its own.
    :param max_running: how many of its runs may be in a launcher's hand at once.
    :param lines: key -> its line in motoko.yaml.
    """

    name: str
    host: str | None = None
    generator: str | None = None
    slots: int | None = None
    max_running: int | None = None
    lines: Mapping[str, int] = attrs.field(converter=read_only, factory=dict, eq=False, repr=False)
    _generator_options: Mapping[str, GeneratorOptions] = attrs.field(converter=copied, factory=dict)

    @property
    def generator_options(self) -> Mapping[str, GeneratorOptions]:
        """Generator name -> its ``<generator>_options`` of this task manager, without the workflow's."""
        return copy.deepcopy(self._generator_options)


@attrs.frozen(kw_only=True)
class WorkflowConfig:
    """motoko.yaml.

    Mappings are read-only; what has lists or mappings inside comes as a fresh copy with every access.

    :param path: absolute path of motoko.yaml; ``directory`` is its parent.
    :param orchestrator: ``module.function``.
    :param aliases: alias -> task manager; an alias of an alias is resolved.
    :param generator: name of the job generator, without BlackDynamite's ``Coat``.
    :param poll_interval: seconds between two looks at the clock and the outside world; > 0.
    :param prefer: ``<kind>.<name>`` -> the distribution that provides it, where several would.
    :param block: names of plugins that are left out.
    :param lines: key at the top of the file -> its line.
    """

    path: Path
    directory: Path
    task_managers: Mapping[str, TaskManagerConfig] = attrs.field(converter=read_only)
    orchestrator: str
    aliases: Mapping[str, str] = attrs.field(converter=read_only, factory=dict)
    generator: str = DEFAULT_GENERATOR
    poll_interval: float = DEFAULT_POLL_INTERVAL_S
    prefer: Mapping[str, str] = attrs.field(converter=read_only, factory=dict)
    block: tuple[str, ...] = ()
    lines: Mapping[str, int] = attrs.field(converter=read_only, factory=dict)
    _generator_options: Mapping[str, GeneratorOptions] = attrs.field(converter=copied, factory=dict)
    _error_handlers: tuple[tuple[str, dict[str, Any]], ...] = attrs.field(converter=copied, default=())
    _raw: dict[str, Any] = attrs.field(converter=copied, factory=dict, repr=False)

    def where(self, key: str, task_manager: str | None = None) -> str:
        """The place of a key, ``path:line``; the path, if it is not there.

        :param task_manager: it is among this one's settings; None: at the top of the file.
        """
        lines = self.lines if task_manager is None else self.task_managers[task_manager].lines
        return f"{self.path}:{lines[key]}" if key in lines else str(self.path)

    @property
    def generator_options(self) -> Mapping[str, GeneratorOptions]:
        """Generator name -> its ``<generator>_options``."""
        return copy.deepcopy(self._generator_options)

    @property
    def error_handlers(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Names and settings of the error handlers, in the order in which they are asked."""
        return copy.deepcopy(self._error_handlers)

    @property
    def raw(self) -> dict[str, Any]:
        """The file as plain data, which Motoko 0.1 shows as ``workflow.config``."""
        return copy.deepcopy(self._raw)


def task_manager_name(
    name: str, task_managers: Iterable[str], aliases: Mapping[str, str], *, where: str | None = None
) -> str:
    """The task manager that a name or an alias stands for.

    :raises ConfigError: there is none.
    """
    found = aliases.get(name, name)
    if found not in task_managers:
        hint = nearest(name, [*task_managers, *aliases])
        raise ConfigError(f"there is no task manager {name!r}", where=where, hint=hint)
    return found


def load_workflow_config(path: str | os.PathLike[str], *, reserved: Collection[str] = ()) -> WorkflowConfig:
    """Read and check a motoko.yaml.

    :param reserved: names of Workflow attributes, which no task manager and no alias may hide.
    :raises ConfigError: the file is missing, or something in it cannot work.
    """
    source = YamlSource.load(
        path,
        missing="Go to the directory of the workflow, or name it: motoko -C DIR ...",
        empty=_SKELETON,
    )
    keys = source.mapping(example=_SKELETON)
    option_keys = _option_keys(keys)
    source.only((), keys, (*_WORKFLOW_KEYS, *option_keys))
    source.require("task_managers", _SKELETON)
    source.require("orchestrator", f"Write {_ORCHESTRATOR}")

    task_managers = _task_managers(source, reserved)
    plugins = source.mapping("plugins", example="plugins: {block: [<plugin>]}")
    source.only(("plugins",), plugins, ("prefer", "block"))
    prefer_example = "prefer: {generators.slurm: <distribution>}"
    prefer = source.mapping("plugins", "prefer", example=prefer_example)
    return WorkflowConfig(
        path=source.path,
        directory=source.path.parent,
        task_managers=task_managers,
        orchestrator=_orchestrator(source),
        aliases=_aliases(source, task_managers, reserved),
        generator=_generator(source) or DEFAULT_GENERATOR,
        generator_options=_generator_options(source, option_keys),
        error_handlers=_error_handlers(source),
        poll_interval=_poll_interval(source),
        prefer={key: source.text("plugins", "prefer", key, example=prefer_example) for key in prefer},
        block=tuple(source.texts("plugins", "block", example="block: [<plugin>]")),
        lines={key: source.line(key) for key in keys},
        raw=source.data,
    )


def _task_managers(source: YamlSource, reserved: Collection[str]) -> dict[str, TaskManagerConfig]:
    example = "task_managers: and below it, indented, one <study>: per line."
    names = source.mapping("task_managers", example=example)
    if not names:
        source.fail(("task_managers",), "'task_managers' names no task manager.", f"Write {example}")
    found = {}
    for name in names:
        _check_name(source, "task_managers", name, reserved)
        keys = ("task_managers", name)
        settings = source.mapping(*keys, example=f"{name}: with nothing behind it, or {name}: {{host: ...}}")
        option_keys = _option_keys(settings)
        source.only(keys, settings, (*_TASK_MANAGER_KEYS, *option_keys))
        host = _host(source, (*keys, "host")) if settings.get("host") is not None else None
        found[name] = TaskManagerConfig(
            name=name,
            host=host,
            generator=_generator(source, *keys),
            generator_options=_generator_options(source, option_keys, *keys),
            slots=_positive(source, *keys, "slots"),
            max_running=_positive(source, *keys, "max_running"),
            lines={key: source.line(*keys, key) for key in settings},
        )
    return found


def _positive(source: YamlSource, *keys: str) -> int | None:
    value = source.get(*keys)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        source.fail(
            keys,
            f"{spell(keys)} must be a positive whole number, not {describe(value)}.",
            f"Write for example {keys[-1]}: 4, or leave it out for no limit.",
        )
    return value


def _check_name(source: YamlSource, section: str, name: str, reserved: Collection[str]) -> None:
    keys = (section, name)
    # A dot would break references such as add.3, a slash the study's directory.
    if not re.fullmatch(r"[\w-]+", name):
        source.fail(keys, f"{name!r} cannot be a name in '{section}'.", "Use letters, digits, _ and - only.")
    if name == "__all__" or name in reserved:
        meaning = "'all task managers'" if name == "__all__" else f"the workflow's own workflow.{name}"
        source.fail(keys, f"the name {name!r} in '{section}' would hide {meaning}.", "Choose another name.")


def _host(source: YamlSource, keys: tuple[str, ...]) -> str:
    given = source.text(*keys, example=_HOST.removeprefix("Write "))
    scheme, _, rest = given.partition("://")
    address = os.path.expanduser(os.path.expandvars(rest))  # noqa: PTH111 - a text, perhaps host:port
    problem = f"'{'.'.join(keys)}' cannot be {given!r}"
    if address.startswith("~"):
        source.fail(keys, f"{problem}: there is no home directory for {address!r}.", "Write it out.")
    if unset := re.search(r"\$(\w+|\{\w+\})", address):
        source.fail(
            keys, f"{problem}: {unset.group()} is not set in the environment.", "Set it, or write it out."
        )
    if scheme != "zeo" or not address:
        source.fail(keys, f"{problem}.", _HOST)
    if ":" not in address:
        # os.path.join leaves an absolute directory alone.
        return "zeo://" + os.path.normpath(source.path.parent / address)
    server = re.fullmatch(r"[\w.-]+:(\d{1,5})", address, re.ASCII)
    if not server or not 1 <= int(server.group(1)) <= 65535:
        source.fail(keys, f"{problem}.", _HOST)
    return "zeo://" + address


def _aliases(source: YamlSource, managers: Collection[str], reserved: Collection[str]) -> dict[str, str]:
    example = "aliases: and below it, indented, <alias>: <task manager>"
    given = {}
    for name in source.mapping("aliases", example=example):
        given[name] = source.text("aliases", name, example=f"{name}: <task manager>")
        _check_name(source, "aliases", name, reserved)
        if name in managers:
            source.fail(
                ("aliases", name),
                f"the alias {name!r} has the name of a task manager.",
                "Choose another name for the alias, or remove it.",
            )
    resolved = {}
    for name in given:
        chain = [name]
        while chain[-1] in given:
            target = given[chain[-1]]
            if target in chain:
                circle = " -> ".join([*chain, target])
                source.fail(
                    ("aliases", chain[-1]),
                    f"the alias {name!r} leads round in a circle: {circle}.",
                    f"Let one of them name a task manager. {nearest(target, managers)}",
                )
            chain.append(target)
        if chain[-1] not in managers:
            source.fail(
                ("aliases", chain[-2]),
                f"the alias {chain[-2]!r} names {chain[-1]!r}, which is no task manager.",
                nearest(chain[-1], [*managers, *given.keys() - set(chain)]),
            )
        resolved[name] = chain[-1]
    return resolved


def _orchestrator(source: YamlSource) -> str:
    spec = source.text("orchestrator", example=_ORCHESTRATOR)
    parts = spec.split(".")
    if len(parts) != 2 or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        source.fail(("orchestrator",), f"'orchestrator' cannot be {spec!r}.", f"Write {_ORCHESTRATOR}")
    return spec


def _generator(source: YamlSource, *section: str) -> str | None:
    keys = (*section, "generator")
    if source.get(*keys) is None:
        return None
    example = "generator: bash, or another generator that 'motoko plugins' shows."
    name = source.text(*keys, example=example).removesuffix("Coat")
    if not name:
        source.fail(keys, f"{spell(keys)} cannot be 'Coat'.", f"Write {example}")
    return name


def _option_keys(keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key.endswith("_options") and key != "_options"]


def _generator_options(source: YamlSource, keys: list[str], *section: str) -> dict[str, GeneratorOptions]:
    found: dict[str, GeneratorOptions] = {}
    for key in keys:
        name = key.removesuffix("_options").removesuffix("Coat")
        if name in found:
            source.fail(
                (*section, key), f"{key!r} repeats the options of {name!r}.", f"Keep {name}_options only."
            )
        example = f"{key}: [<option>, ...] with options in quotes, or a mapping of settings."
        if isinstance(source.get(*section, key), dict):
            found[name] = source.mapping(*section, key, example=example)
        else:
            found[name] = source.texts(*section, key, example=example)
    return found


def _error_handlers(source: YamlSource) -> tuple[tuple[str, dict[str, Any]], ...]:
    example = "error_handlers: [<name>, {<name>: {<setting>: <value>}}]"
    entries = source.get("error_handlers")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        hint = f"Write {example}"
        source.fail(("error_handlers",), f"'error_handlers' must be a list, not {describe(entries)}.", hint)
    handlers: list[tuple[str, dict[str, Any]]] = []
    for index, entry in enumerate(entries):
        keys = ("error_handlers", index)
        if not isinstance(entry, dict):
            handlers.append((source.text(*keys, example=example), {}))
            continue
        names = source.mapping(*keys, example=example)
        if len(names) != 1:
            source.fail(
                keys,
                f"'error_handlers[{index}]' must have one key, the handler's name, not {describe(entry)}.",
                f"Write {example} - the settings are indented below the name.",
            )
        name = next(iter(names))
        handlers.append((name, source.mapping(*keys, name, example=example)))
    return tuple(handlers)


def _poll_interval(source: YamlSource) -> float:
    value = source.get("poll_interval")
    if value is None:
        return DEFAULT_POLL_INTERVAL_S
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        source.fail(
            ("poll_interval",),
            f"'poll_interval' must be a number of seconds above 0, not {describe(value)}.",
            f"Write poll_interval: {DEFAULT_POLL_INTERVAL_S}",
        )
    return float(value)
