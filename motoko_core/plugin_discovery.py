"""Finding plugins: what an entry point leads to, whether it fits the hook specs, and what it offers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import attrs
import pluggy

from motoko_core import hookspecs
from motoko_core.errors import MotokoError, PluginError, nearest
from motoko_core.hookspecs import PROJECT
from motoko_core.interfaces import CliCommand

#: The distribution whose plugins are the built-ins: they yield to everybody else's.
BUILTIN_DISTRIBUTION = "motoko"

FORM_HOOK = "motoko_condition_from_event"
#: Kinds of things with a name; the hook ``motoko_<kind>`` provides them.
KINDS = ("conditions", "actions", "generators", "error_handlers", "cli_commands")
OBSERVER_HOOKS = (
    "motoko_workflow_started",
    "motoko_workflow_finished",
    "motoko_event_fired",
    "motoko_runs_changed",
)

#: What a plugin may throw at us without taking everything down; a module that calls ``sys.exit`` at
#: import is as broken as one that raises. KeyboardInterrupt and cancellation are the user's.
PLUGIN_ERRORS = (Exception, SystemExit)


@attrs.define
class PluginInfo:
    """One plugin, as ``motoko plugins`` shows it.

    :param name: name of its entry point.
    :param distribution: the distribution that it comes in; the top package for one without metadata.
    :param builtin: whether it is one of Motoko's own.
    :param provides: kind (``condition_forms``, ``conditions``, ``actions``, ``generators``,
        ``error_handlers``, ``cli_commands``, ``observers``) -> names; kinds with nothing in them are absent.
    :param overrides: what it provides instead of another plugin, such as ``generators.slurm``.
    :param left_out: why it is not in use; None if it is.
    """

    name: str
    distribution: str
    version: str
    builtin: bool
    provides: dict[str, list[str]] = attrs.field(factory=dict)
    overrides: list[str] = attrs.field(factory=list)
    left_out: str | None = None

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}".rstrip()


@attrs.define(eq=False)
class Loaded:
    """A plugin in use.

    :param alone: a manager with this plugin only. It checks the hooks without a trace in anybody
        else's manager, and makes it known which plugin a call goes to.
    :param offers: kind -> name -> factory, class or command.
    """

    info: PluginInfo
    plugin: object
    alone: pluggy.PluginManager
    offers: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    @property
    def label(self) -> str:
        return f"{self.info.distribution}:{self.info.name}"

    def implementations(self, hook_name: str) -> list[pluggy.HookImpl]:
        impls: list[pluggy.HookImpl] = getattr(self.alone.hook, hook_name).get_hookimpls()
        return [impl for impl in impls if not (impl.wrapper or impl.hookwrapper)]


def describe(entry: EntryPoint) -> PluginInfo:
    """Say where an entry point comes from; a distribution's metadata may be missing or incomplete."""
    try:
        metadata: Any = entry.dist.metadata if entry.dist else {}
        distribution, version = metadata["Name"], metadata["Version"]
    except Exception:  # noqa: BLE001  -- the type differs between Python versions
        distribution = version = None
    if not distribution:
        package = re.split(r"[.:]", entry.value.strip())[0]
        return PluginInfo(entry.name, package, version or "", builtin=False)
    return PluginInfo(
        entry.name, distribution, version or "", builtin=same(distribution, BUILTIN_DISTRIBUTION)
    )


def load(info: PluginInfo, entry: EntryPoint, loaded: Sequence[Loaded]) -> Loaded:
    """Import one plugin and collect what it provides; whatever is wrong with it is raised."""
    plugin = entry.load()
    item = Loaded(info, plugin, make_manager())
    for other in loaded:
        # pluggy would refuse to have either of these twice.
        if other.plugin == plugin:
            raise PluginError(f"{entry.value} is what {other.info} gives already")
        if other.label == item.label:
            raise PluginError(f"{info.distribution} lists two entry points of that name")
    item.alone.register(plugin, name=item.label)
    callers = item.alone.get_hookcallers(plugin)
    if not callers:
        raise PluginError(f"{entry.value} implements no hook; is @hookimpl missing?")
    known = [name for name in vars(hookspecs) if name.startswith("motoko_")]
    for caller in callers:
        impls = caller.get_hookimpls()
        if not caller.has_spec() and not all(impl.optionalhook for impl in impls):
            raise PluginError(f"unknown hook {caller.name!r}", hint=nearest(caller.name, known))
        if any(inspect.iscoroutinefunction(impl.function) for impl in impls):
            raise PluginError(f"hook {caller.name!r} must be a plain function, not a coroutine function")
    item.offers = {kind: _offers(item, kind) for kind in KINDS}
    info.provides.update({kind: sorted(names) for kind, names in item.offers.items() if names})
    if item.implementations(FORM_HOOK):
        info.provides["condition_forms"] = [info.name]
    observed = [hook for hook in OBSERVER_HOOKS if item.implementations(hook)]
    if observed:
        info.provides["observers"] = observed
    return item


def _offers(item: Loaded, kind: str) -> dict[str, Any]:
    """Ask a plugin for its named things of one kind; name -> factory, class or command."""
    hook = f"motoko_{kind}"
    answers = getattr(item.alone.hook, hook)()
    if len(answers) < len(item.implementations(hook)):
        raise PluginError(f"{hook} returns None")  # pluggy drops it from the list
    offers: dict[str, Any] = {}
    for answer in answers:
        if kind == "cli_commands":
            if not isinstance(answer, (list, tuple)) or not all(isinstance(c, CliCommand) for c in answer):
                raise PluginError(f"{hook} returns {answer!r}, not a list of CliCommand")
            named = [(command.name, command) for command in answer]
        else:
            if not isinstance(answer, Mapping):
                raise PluginError(f"{hook} returns {answer!r}, not a mapping of names")
            named = list(answer.items())
        for name, thing in named:
            if not isinstance(name, str) or not name.strip():
                raise PluginError(f"{hook} has {name!r} for a name; a name is a string")
            if name in offers:
                raise PluginError(f"{hook} provides {name!r} twice")
            if kind != "cli_commands" and not callable(thing):
                raise PluginError(f"{hook} has {thing!r} under {name!r}; it must be a class or a function")
            offers[name] = thing
    return offers


def make_manager(items: Iterable[Loaded] = ()) -> pluggy.PluginManager:
    """Make a manager whose hooks ask ``items`` in their order."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for item in reversed(list(items)):  # pluggy calls the last registered one first
        manager.register(item.plugin, name=item.label)
    return manager


def same(one: str, other: str) -> bool:
    """Whether two spellings name one distribution: ``motoko_slurm`` is ``Motoko-SLURM``."""
    return re.sub(r"[-_.]+", "-", str(one)).lower() == re.sub(r"[-_.]+", "-", str(other)).lower()


def reason(error: BaseException) -> str:
    """Say in one line what was raised."""
    text = " ".join(str(error).split())
    if isinstance(error, (MotokoError, pluggy.PluginValidationError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
