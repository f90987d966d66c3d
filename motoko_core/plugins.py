"""Finds the plugins, settles who provides which name, and hands out what they provide.

Nothing here happens at import: :func:`load_plugins` makes a :class:`PluginRegistry`, and whoever needs
one gets it passed. A broken plugin is reported and left out; a contradiction that only the user can
settle (two plugins that claim one name, a misspelt preference) is an error.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy

from motoko_core.errors import ConfigError, MotokoError, PluginError, nearest
from motoko_core.hookspecs import ENTRY_POINT_GROUP, hookimpl
from motoko_core.interfaces import CliCommand, Condition, ErrorHandler, JobGenerator
from motoko_core.plugin_claims import check_block, settle
from motoko_core.plugin_discovery import (
    FORM_HOOK,
    OBSERVER_HOOKS,
    PLUGIN_ERRORS,
    Loaded,
    PluginInfo,
    describe,
    load,
    make_manager,
    reason,
    same,
)

__all__ = ["PluginInfo", "PluginRegistry", "find_plugins", "load_plugins"]

log = logging.getLogger("motoko.plugins")


class _BuiltIns:
    """Lets the built-ins stand in the third parties' queue as one plugin, at its end.

    So ``tryfirst`` and ``trylast`` count among the built-ins and among the third parties, never
    between them, while a third party's hook wrapper still sees the built-ins' answers.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager

    @hookimpl(trylast=True)
    def motoko_condition_from_event(self, event: object, event_name: str) -> Any:
        return self._manager.hook.motoko_condition_from_event(event=event, event_name=event_name)


class PluginRegistry:
    """What the plugins provide, by kind and name. Made by :func:`load_plugins`."""

    #: Every plugin that was found, third parties first, each group by distribution and name.
    plugins: list[PluginInfo]

    def __init__(
        self,
        plugins: list[PluginInfo],
        loaded: Sequence[Loaded],
        winners: Mapping[str, Mapping[str, Loaded]],
    ) -> None:
        self.plugins = plugins
        self._loaded = loaded
        self._winners = winners
        self._observers = {
            hook: [item for item in loaded if getattr(item.alone.hook, hook).get_hookimpls()]
            for hook in OBSERVER_HOOKS
        }
        forms = [item for item in loaded if getattr(item.alone.hook, FORM_HOOK).get_hookimpls()]
        self._forms = make_manager(item for item in forms if not item.info.builtin)
        # Registered last: of several trylast implementations, pluggy calls the last registered one last.
        self._forms.register(_BuiltIns(make_manager(item for item in forms if item.info.builtin)))

    def condition_from_event(self, event: object, event_name: str) -> Condition:
        """Make a condition of what a user passed as ``event=``; a condition is returned as it is.

        :raises ConfigError: no plugin knows the form of ``event``, or its content is wrong.
        :raises PluginError: a plugin failed, or answered something that is not a condition.
        """
        if isinstance(event, Condition):
            return event
        try:
            answer = self._forms.hook.motoko_condition_from_event(event=event, event_name=event_name)
        except MotokoError:
            raise
        except PLUGIN_ERRORS as error:
            raise self._form_error(event, event_name, reason(error)) from error
        if answer is None:
            raise ConfigError(
                f"event={reprlib.repr(event)} ({_what(event)}) has none of the forms of an event",
                where=f"action {event_name!r}",
                hint="An event is one of\n    " + "\n    ".join(self._form_lines()),
            )
        if not isinstance(answer, Condition):
            raise self._form_error(event, event_name, f"answered {answer!r}, which is not a Condition")
        return answer

    def condition(self, name: str, /, **settings: Any) -> Condition:
        """Make a named condition.

        :raises PluginError: there is none of that name, or the plugin that makes it is broken.
        :raises ConfigError: the settings are wrong.
        """
        made = self._make("conditions", name, settings)
        if not isinstance(made, Condition):
            raise self._wrong_type("conditions", name, made, "a Condition")
        return made

    def action(self, name: str, /, **settings: Any) -> Callable[..., Any]:
        """Make a named callback for ``add_action``; raises as :meth:`condition` does."""
        made: Callable[..., Any] = self._make("actions", name, settings)
        if not callable(made):
            raise self._wrong_type("actions", name, made, "a callback")
        return made

    def error_handler(self, name: str, /, **settings: Any) -> ErrorHandler:
        """Make a named error handler; raises as :meth:`condition` does."""
        made = self._make("error_handlers", name, settings)
        if not isinstance(made, ErrorHandler):
            raise self._wrong_type("error_handlers", name, made, "an ErrorHandler")
        return made

    def generator(self, name: str, directory: Path | None = None) -> type[JobGenerator]:
        """Look up a generator; ``slurm`` and BlackDynamite's ``slurmCoat`` mean the same.

        :param directory: where motoko.yaml is, for plugins that make a generator of what stands there.
        :raises PluginError: there is none of that name, or it is not a usable :class:`JobGenerator`.
        """
        if isinstance(name, str) and name not in self._winners["generators"]:
            other = name.removesuffix("Coat") if name.endswith("Coat") else f"{name}Coat"
            name = other if other in self._winners["generators"] else name
        if directory is not None and isinstance(name, str) and name not in self._winners["generators"]:
            for item in self._loaded:
                if (made := self._generator_from_name(item, name, directory)) is not None:
                    return made
        found = self._find("generators", name).offers["generators"][name]
        if not (isinstance(found, type) and issubclass(found, JobGenerator)):
            raise self._wrong_type("generators", name, found, "a subclass of JobGenerator")
        self._refuse_abstract("generators", name, found)
        return found

    def _generator_from_name(self, item: Loaded, name: str, directory: Path) -> type[JobGenerator] | None:
        where = f"generator {name!r}"
        try:
            found = item.alone.hook.motoko_generator_from_name(name=name, directory=directory)
        except MotokoError:
            raise
        except PLUGIN_ERRORS as error:
            raise PluginError(f"{item.info} failed: {reason(error)}", where=where) from error
        if found is None or (isinstance(found, type) and issubclass(found, JobGenerator)):
            return found
        raise PluginError(f"{item.info} gives {found!r}, not a subclass of JobGenerator", where=where)

    def cli_commands(self) -> Sequence[CliCommand]:
        """Return the commands that plugins add to ``motoko``, by name."""
        winners = self._winners["cli_commands"]
        return [winners[name].offers["cli_commands"][name] for name in sorted(winners)]

    def observe(self, hook_name: str, /, **kwargs: Any) -> None:
        """Call an observer hook of every plugin that has it; what one raises is logged, and that is all.

        :raises PluginError: ``hook_name`` is not an observer hook.
        """
        if hook_name not in self._observers:
            raise PluginError(f"{hook_name!r} is no observer hook", hint=nearest(hook_name, OBSERVER_HOOKS))
        for item in self._observers[hook_name]:
            try:
                getattr(item.alone.hook, hook_name)(**kwargs)
            except PLUGIN_ERRORS:
                log.exception("%s failed in %s; the workflow goes on", item.info, hook_name)

    def _find(self, kind: str, name: str) -> Loaded:
        winners = self._winners[kind]
        if isinstance(name, str) and name in winners:
            return winners[name]
        hint = nearest(name, winners)
        # The name may well be there, in a plugin that does not work.
        broken = [f"{info} ({info.left_out})" for info in self.plugins if info.left_out]
        if broken:
            hint += " Left out: " + "; ".join(broken) + "."
        raise PluginError(f"there is no {_singular(kind)} {name!r}", hint=hint)

    def _make(self, kind: str, name: str, settings: Mapping[str, Any]) -> Any:
        item = self._find(kind, name)
        factory = item.offers[kind][name]
        self._refuse_abstract(kind, name, factory)
        where = f"{_singular(kind)} {name!r}"
        signature = _signature(factory)
        if signature is not None:
            try:
                signature.bind(**settings)
            except TypeError as error:
                raise ConfigError(str(error), where=where, hint=_accepted(signature)) from None
        try:
            return factory(**settings)
        except MotokoError as error:
            error.where = error.where or where  # the factory need not know its own name
            raise
        except (TypeError, ValueError) as error:
            # What attrs validators and most hand-written checks raise for a wrong value.
            hint = None if signature is None else _accepted(signature)
            raise ConfigError(str(error), where=where, hint=hint) from error
        except PLUGIN_ERRORS as error:
            raise PluginError(f"{item.info} failed: {reason(error)}", where=where) from error

    def _wrong_type(self, kind: str, name: str, got: object, wanted: str) -> PluginError:
        info = self._find(kind, name).info
        return PluginError(f"{info} gives {got!r}, not {wanted}", where=f"{_singular(kind)} {name!r}")

    def _refuse_abstract(self, kind: str, name: str, found: Any) -> None:
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise self._wrong_type(kind, name, found, f"a complete class: it lacks {missing}")

    def _form_error(self, event: object, event_name: str, problem: str) -> PluginError:
        """Name the plugin that spoilt a call, by asking each one alone: pluggy does not tell."""
        culprit = "a plugin"
        for item in self._loaded:
            try:
                answer = item.alone.hook.motoko_condition_from_event(event=event, event_name=event_name)
            except MotokoError:
                continue
            except PLUGIN_ERRORS:
                answer = NotImplemented
            if answer is not None and not isinstance(answer, Condition):
                culprit = str(item.info)
                break
        return PluginError(
            f"{culprit} failed on event={reprlib.repr(event)}: {problem}", where=f"action {event_name!r}"
        )

    def _form_lines(self) -> list[str]:
        lines = []
        for item in self._loaded:
            for impl in item.implementations(FORM_HOOK):
                about = (inspect.getdoc(impl.function) or "").partition("\n")[0].strip()
                lines.append(f"{item.info.name}: {about}" if about else item.info.name)
        return lines


def load_plugins(
    *,
    prefer: Mapping[str, str] = {},
    block: Sequence[str] = (),
    entry_points: Iterable[EntryPoint] | None = None,
) -> PluginRegistry:
    """Import the plugins and settle who provides which name.

    A third-party distribution beats the built-in. A plugin that does not import, does not match the
    hook specs, or whose providing hook fails is logged as a warning and listed as left out.

    :param prefer: ``kind.name`` -> the distribution whose claim counts, such as
        ``{"generators.slurm": "motoko-slurm"}``; ``motoko`` stands for the built-ins.
    :param block: entry points and distributions that are not even imported.
    :param entry_points: instead of those that are installed.
    :raises PluginError: two third parties claim one name and ``prefer`` does not settle it, or
        ``prefer`` or ``block`` names something that does not exist.
    """
    plugins, loaded = find_plugins(block=block, entry_points=entry_points)
    return PluginRegistry(plugins, loaded, settle(plugins, loaded, prefer))


def find_plugins(
    *, block: Sequence[str] = (), entry_points: Iterable[EntryPoint] | None = None
) -> tuple[list[PluginInfo], list[Loaded]]:
    """Import the plugins, as :func:`load_plugins` does; who provides which name is not settled yet.

    :return: every plugin, and those in use.
    :raises PluginError: ``block`` names something that does not exist.
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    found = sorted(
        ((describe(entry), entry) for entry in entry_points),
        key=lambda pair: (pair[0].builtin, pair[0].distribution, pair[0].name, pair[1].value),
    )
    plugins = [info for info, _ in found]
    check_block(block, plugins)
    loaded: list[Loaded] = []
    for info, entry in found:
        if any(same(name, info.name) or same(name, info.distribution) for name in block):
            info.left_out = "blocked in motoko.yaml"
            continue
        try:
            loaded.append(load(info, entry, loaded))
        except PLUGIN_ERRORS as error:
            info.left_out = reason(error)
            info.provides.clear()
            log.warning("%s is left out: %s", info, info.left_out)
            log.debug("traceback of %s", info, exc_info=True)
    return plugins, loaded


def _singular(kind: str) -> str:
    return kind.removesuffix("s").replace("_", " ")


def _signature(thing: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        return None  # some classes and functions written in C have none


def _accepted(signature: inspect.Signature) -> str:
    names = [str(p.replace(annotation=p.empty)) for p in signature.parameters.values()]
    return f"It takes: {', '.join(names)}." if names else "It takes no settings."


def _what(event: object) -> str:
    """Describe a value by its type, and its signature if it can be called."""
    signature = _signature(event) if callable(event) else None
    return type(event).__name__ + (f" with the signature {signature}" if signature else "")
