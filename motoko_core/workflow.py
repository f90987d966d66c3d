"""Workflows: the facade over studies, variables, actions and the engine."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import cached_property
from itertools import count
from types import ModuleType
from typing import Any

from motoko_core import lifecycle
from motoko_core.config import WorkflowConfig, load_workflow_config, task_manager_name
from motoko_core.engine.actions import (
    ALL,
    Action,
    ActionRegistry,
    EventCallback,
    EventCondition,
    accepted_arguments,
    check_callback,
)
from motoko_core.engine.failures import aborting
from motoko_core.engine.firing import EngineSession, event, no_action
from motoko_core.engine.watch import Registration, Watch
from motoko_core.entries import FailureIdentity
from motoko_core.errors import ConfigError, MotokoError, TaskError, nearest
from motoko_core.interfaces import Condition, ErrorHandler, RunCondition
from motoko_core.journal import Journal
from motoko_core.locks import held, holder
from motoko_core.orchestrator import load_orchestrator, orchestrator_function
from motoko_core.plugins import PluginRegistry, load_plugins
from motoko_core.session import current_session
from motoko_core.task_manager import TaskManager, caller_place
from motoko_core.variables import WorkflowVars, variables_database

__all__ = [
    "ActionRegistry",
    "EventCallback",
    "EventCondition",
    "Workflow",
    "WorkflowVars",
    "event",
    "no_action",
]


#: ``add_action`` has a parameter of the same name.
_transacted = event


def _place_of_caller() -> str | None:
    """The first frame outside this file, as ``file:line``."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return caller_place(frame) if frame is not None else None


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise MotokoError(
            f"{question} There is nobody to ask.", hint="Pass --validated (Workflow.create(validated=True))."
        )
    return input(f"{question} (y/N) ").strip().lower() in ("y", "yes")


class Workflow:
    """A workflow described by a ``motoko.yaml``: several studies, and an orchestrator that ties them up.

    Every task manager is an attribute, and so is every alias: ``workflow.mult``.

    :param filename: path of ``motoko.yaml``.
    :raises ~motoko_core.errors.ConfigError: it, or a study's ``bd.yaml``, is missing or wrong.
    """

    def __init__(self, filename: str | os.PathLike[str]) -> None:
        self.configuration: WorkflowConfig = load_workflow_config(filename, reserved=_RESERVED)
        self.config: dict[str, Any] = self.configuration.raw
        self.config_path = str(self.configuration.path)
        self.directory = str(self.configuration.directory)
        self.aliases: dict[str, str] = dict(self.configuration.aliases)
        self.orchestrator_script: str = self.configuration.orchestrator
        self.orchestrator_function: Callable[..., Any] | None = None
        self.actions: ActionRegistry = {}
        #: Name of the workflow run: stored with every task, implied in every selection.
        self.run_name: str | None = None
        #: Do not give up when nothing can happen any more: tasks come from outside.
        self.wait_forever = False
        self.params: dict[str, Any] = {}
        self._finished = False
        self._handlers: list[ErrorHandler] = []
        self._engine: Any = None
        #: Seconds, monotonic: decides what is due. Tests put their own here.
        self._clock: Callable[[], float] = time.monotonic
        self._vars: WorkflowVars | None = None
        self.task_managers: dict[str, TaskManager] = {
            name: TaskManager(self, name) for name in self.configuration.task_managers
        }

    def __getattr__(self, name: str) -> TaskManager:
        managers = self.__dict__.get("task_managers", {})
        target = self.__dict__.get("aliases", {}).get(name, name)
        if target in managers:
            return managers[target]  # type: ignore[no-any-return]
        if name.startswith("__") or not managers:
            raise AttributeError(name)
        known = [*managers, *self.__dict__.get("aliases", {})]
        raise AttributeError(f"the workflow has no task manager {name!r}. {nearest(name, known)}")

    def __repr__(self) -> str:
        return f"<Workflow {self.config_path}>"

    # ------------------------------------------------------------------ state

    @property
    def finished(self) -> bool:
        """Set it to True to end the workflow."""
        return self._finished

    @finished.setter
    def finished(self, value: bool) -> None:
        self._finished = bool(value)
        session = current_session()
        if isinstance(session, EngineSession):
            session.sets_finished = self._finished
        if self._engine is not None:
            self._engine.wake()

    @property
    def vars(self) -> WorkflowVars:
        """Values of the workflow's own, stored in ``.wf/wf.db``; made when first used."""
        if self._vars is None:
            database = variables_database(self.configuration.directory)
            self._vars = WorkflowVars(database.server.data, database)
        return self._vars

    @cached_property
    def plugins(self) -> PluginRegistry:
        """The registry of plugins, as ``plugins:`` in motoko.yaml shapes it."""
        return load_plugins(prefer=self.configuration.prefer, block=self.configuration.block)

    def is_empty(self) -> bool:
        """Whether no task exists yet (of ``run_name``, when it is set)."""
        return not any(len(manager.select()) for manager in self.task_managers.values())

    def task_manager(self, name: str, *, where: str | None = None) -> TaskManager:
        """A task manager by its name or alias.

        :raises ~motoko_core.errors.ConfigError: there is none.
        """
        return self.task_managers[task_manager_name(name, self.task_managers, self.aliases, where=where)]

    def get_runs(self, run_list: Iterable[str]) -> dict[str, list[Any]]:
        """Runs by their references, ``<task manager>.<run id>``, grouped by the names as they are written.

        :raises ~motoko_core.errors.TaskError: a reference is malformed, or leads nowhere.
        """
        if isinstance(run_list, str):
            run_list = [run_list]
        found: dict[str, list[Any]] = {}
        for reference in run_list:
            name, dot, run_id = str(reference).rpartition(".")
            if not (dot and run_id.isdecimal()):
                raise TaskError(
                    f"{reference!r} is not a reference to a run",
                    hint="Write <task manager>.<run id>, such as 'add.1'.",
                )
            try:
                manager = self.task_manager(name)
            except ConfigError as error:
                raise TaskError(f"{reference!r}: {error.message}", hint=error.hint) from None
            found.setdefault(name, []).append(manager.run(int(run_id)))
        return found

    # ------------------------------------------------------------------ studies and launcher

    def create(self, validated: bool | None = None) -> bool:
        """Make all studies anew, and start their servers.

        :param validated: True drops what is there without asking.
        :returns: False if the user was asked and said no.
        """
        return lifecycle.create(self, validated, _ask)

    def start_launcher_daemons(self, args: argparse.Namespace | None = None) -> None:
        """Start the launcher, which executes the runs of all studies.

        :param args: ``bd_study`` (a task manager, or ``all``), ``generator``, ``do_not_detach``; each may be
            missing.
        """
        from motoko_core.launch.daemon import launch

        settings = vars(args) if args is not None else {}
        launch(
            self,
            study=settings.get("bd_study") or "all",
            generator=settings.get("generator"),
            detach=not settings.get("do_not_detach"),
        )

    def has_launcher(self) -> bool:
        """Whether a launcher is at work on any of the studies."""
        return any(holder(manager.launcher_lock) is not None for manager in self.task_managers.values())

    def is_undecided(self, manager: TaskManager, run_id: int, failure: FailureIdentity) -> bool:
        """Whether the error handlers have still to say what becomes of a failed run."""
        return self._engine is not None and bool(self._engine.handlers.is_undecided(manager, run_id, failure))

    # ------------------------------------------------------------------ orchestrator

    def load_orchestrator_module(self) -> ModuleType:
        """Import the orchestrator's module anew."""
        return load_orchestrator(self.configuration)

    def get_orchestrator_function(self) -> Callable[..., Any]:
        """The function that ``orchestrator:`` in motoko.yaml names; imported once.

        :raises ~motoko_core.errors.ConfigError: module or function is missing.
        :raises ~motoko_core.errors.ActionError: the module raised when it was imported.
        """
        if self.orchestrator_function is None:
            self.orchestrator_function = orchestrator_function(
                self.configuration, self.load_orchestrator_module()
            )
        return self.orchestrator_function

    def condition(self, name: str, /, **settings: Any) -> Condition:
        """A named condition that a plugin provides, for ``add_action(event=...)``."""
        return self.plugins.condition(name, **settings)

    def action(self, name: str, /, **settings: Any) -> Callable[..., Any]:
        """A named callback that a plugin provides, for ``add_action(f=...)``."""
        return self.plugins.action(name, **settings)

    def is_run_filter(self, f: Any) -> bool:
        """Whether ``add_action`` takes ``f`` for a function ``event(run, job)``."""
        return callable(f) and list(inspect.signature(f).parameters)[:2] == ["run", "job"]

    def is_workflow_filter(self, f: Any) -> bool:
        """Whether ``add_action`` takes ``f`` for a function ``event(workflow, task_manager)``."""
        return callable(f) and list(inspect.signature(f).parameters)[:2] == ["workflow", "task_manager"]

    def is_no_param_func(self, f: Any) -> bool:
        """Whether ``add_action`` takes ``f`` for a function ``event()``."""
        return callable(f) and not inspect.signature(f).parameters

    def add_action(
        self,
        event_name: str,
        task: str = ALL,
        event: EventCondition = None,
        get_params: Callable[[], Any] | Any = None,
        f: EventCallback | None = None,
        once_per_run: bool = False,
    ) -> None:
        """Register an action: when ``event`` is true, ``f`` is called.

        :param event_name: its name; a second registration under the same name and task replaces the first.
        :param task: the task manager (or alias) to watch, or ``"__all__"``.
        :param event: ``event(run, job)``, ``event(workflow, task_manager)``, ``event()``, a constraint
            string, a list of them, a condition from :meth:`condition`, or what a plugin understands.
        :param get_params: a function (or value) evaluated at each firing, passed as ``params``.
        :param f: the callback, sync or async. It gets the arguments that its signature takes, out of
            ``workflow``, ``runs`` (for a selection), ``task_manager``, ``event_name``, ``params`` and the
            runtime parameters.
        :param once_per_run: each task fires the action once in the life of a ``run_name``; with a boolean
            condition, each task manager does.
        :raises ~motoko_core.errors.ConfigError: unknown task manager, unknown form of event, a constraint
            that does not parse, no callback.
        """
        self._register(event_name, task, event, get_params, f, once_per_run)

    def _register(
        self,
        event_name: str,
        task: str = ALL,
        event: EventCondition = None,
        get_params: Callable[[], Any] | Any = None,
        f: EventCallback | None = None,
        once_per_run: bool = False,
        is_error_handler: bool = False,
    ) -> None:
        place = _place_of_caller()
        callback = check_callback(f, event_name, place)
        manager = task if task == ALL else self.task_manager(task, where=place).study
        watched = self.task_managers.values() if manager == ALL else [self.task_managers[manager]]
        try:
            condition = self.plugins.condition_from_event(event, event_name)
            constraints = {}
            if isinstance(condition, RunCondition):
                constraints = {m.study: m.constraint(list(condition.constraints)) for m in watched}
        except MotokoError as error:
            error.where = f"{place}, {error.where}" if error.where else place
            raise
        self.actions.setdefault(manager, {})[event_name] = Action(
            event_name=event_name,
            task=manager,
            event=event,
            f=callback,
            get_params=get_params,
            once_per_run=once_per_run,
            condition=condition,
            constraints=constraints,
            place=place,
            is_error_handler=is_error_handler,
        )
        if self._engine is not None:
            self._engine.lookout.note()
            self._engine.wake()

    def add_error_handler(
        self,
        event: EventCondition = "state = FAILED",
        f: EventCallback | ErrorHandler | str = no_action,
        **kwargs: Any,
    ) -> None:
        """Register what happens when runs fail.

        A function ``f`` is called with the failed runs, and then the workflow ends with an error. Several of
        them live side by side. The name of an error handler that a plugin provides (with its settings as
        ``kwargs``), or an :class:`~motoko_core.interfaces.ErrorHandler`, is asked about each failed run
        instead, before those functions, after the handlers of motoko.yaml.

        :param event: which runs count as failed.
        :param kwargs: for :meth:`add_action`, such as ``task``.
        """
        if isinstance(f, str):
            f = self.plugins.error_handler(f, **kwargs)
        if isinstance(f, ErrorHandler):
            if self._engine is not None:
                self._engine.handlers.add(f)
            else:
                self._handlers.append(f)
            return
        callback = aborting(check_callback(f, "error_handler", _place_of_caller()))
        task = kwargs.get("task", ALL)
        taken = self.actions.get(self.aliases.get(task, task), {})
        names = ("error_handler" if number == 1 else f"error_handler_{number}" for number in count(1))
        name = next(name for name in names if name not in taken)
        self._register(**{"event_name": name, **kwargs}, event=event, f=callback, is_error_handler=True)

    # ------------------------------------------------------------------ execution

    def execute(self, **params: Any) -> None:
        """Run the orchestrator until it is finished.

        :param params: runtime parameters for ``main`` and all callbacks.
        :raises ~motoko_core.errors.MotokoError: it ended otherwise: user code raised (the exception is the
            ``__cause__``), an error handler ended it, or nothing can happen any more.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self.execute_async(**params))
            return
        raise MotokoError(
            "execute() was called inside a running event loop, such as a notebook's",
            hint="Write `await workflow.execute_async()` there.",
        )

    async def execute_async(self, **params: Any) -> None:
        """The same as :meth:`execute`, inside a running event loop."""
        lock = lifecycle.state_directory(self) / lifecycle.ORCHESTRATOR_LOCK
        hint = "`motoko orchestrator status` shows it; `motoko orchestrator stop` stops it."
        with held(lock, f"an orchestrator of {self.config_path} is running already", hint):
            await self._execute(params)

    async def _execute(self, params: dict[str, Any]) -> None:
        from motoko_core.engine.loop import Engine

        self.params = params
        self.finished = False
        main = self.get_orchestrator_function()
        handlers = [self._configured_handler(name, s) for name, s in self.configuration.error_handlers]
        databases = [*(manager.database for manager in self.task_managers.values()), self.vars.database]
        journal = Journal(lifecycle.state_directory(self), {d.key: d.connect for d in databases})
        if journal.recover():
            for database in databases:
                database.ping()  # then it has heard of all that was mended, not only of a part
        actions = {task: dict(by_name) for task, by_name in self.actions.items()}
        outcome = "failed"
        self._engine = Engine(self, params, [*handlers, *self._handlers], journal=journal, clock=self._clock)
        try:
            self.plugins.observe("motoko_workflow_started", workflow=self)
            await self._engine.run(main)
            outcome = "finished"
        except (asyncio.CancelledError, KeyboardInterrupt):
            outcome = "interrupted"
            raise
        except SystemExit as leaving:
            outcome = "failed" if leaving.code else "finished"
            raise
        finally:
            self._engine = None
            self.actions = actions  # a second execution registers its own again
            self.plugins.observe("motoko_workflow_finished", workflow=self, outcome=outcome)

    def _configured_handler(self, name: str, settings: Mapping[str, Any]) -> ErrorHandler:
        try:
            return self.plugins.error_handler(name, **settings)
        except MotokoError as error:
            error.where = f"{self.config_path}: error_handlers"
            raise

    # ------------------------------------------------------------------ by hand

    async def check_events(self, **params: Any) -> None:
        """Evaluate every registered action once, and fire those whose condition is true.

        :meth:`execute` does this by itself, at the right moments; this is for scripts that bring their own
        loop.

        :param params: runtime parameters for the callbacks.
        """
        for task, actions in list(self.actions.items()):
            for name in list(actions):
                await self.check_event(name, task, **params)

    async def check_event(self, event_name: str, task_manager_name: str = ALL, **params: Any) -> list[Any]:
        """Evaluate one registered action once, and fire it where its condition is true.

        :param task_manager_name: the task manager that it was registered for.
        :returns: what its callback returned, for each task manager where it fired.
        :raises ~motoko_core.errors.ConfigError: there is no such action.
        """
        task = self.aliases.get(task_manager_name, task_manager_name)
        action = self.actions.get(task, {}).get(event_name)
        if action is None:
            known = [name for by_name in self.actions.values() for name in by_name]
            raise ConfigError(
                f"there is no action {event_name!r} on {task_manager_name!r}", hint=nearest(event_name, known)
            )
        if action.once_per_run:
            raise ConfigError(
                f"the action {event_name!r} fires once per run: only execute() keeps account of that",
                where=action.place,
            )
        results = []
        for manager in self.task_managers.values() if task == ALL else [self.task_managers[task]]:
            trigger = Watch(action, manager, Registration()).trigger(self)
            if trigger:
                fired = self.fire_event(
                    event_name, manager.study, action.f, trigger, action.get_params, params
                )
                results += [result async for result in fired]
        return results

    async def fire_event(
        self,
        event_name: str,
        task_manager_name: str,
        f: EventCallback,
        trigger: bool | Iterable[tuple[Any, Any]],
        get_params: Callable[[], Any] | Any | None,
        params: Mapping[str, Any],
    ) -> AsyncIterator[Any]:
        """Call a callback as for an event, with the transaction treatment of :func:`event`.

        :param trigger: True, or the ``(run, job)`` pairs that it gets as ``runs``.
        :returns: an iterator over what it returns.
        """
        manager = self.task_manager(task_manager_name)
        arguments = {**params, "workflow": self, "task_manager": manager, "event_name": event_name}
        if not isinstance(trigger, bool):
            arguments["runs"] = list(trigger)
        arguments["params"] = get_params() if callable(get_params) else get_params
        yield await _transacted(f)(**accepted_arguments(f, arguments))

    async def loop_check_events(self, **params: Any) -> None:
        """Call :meth:`check_events` once per ``poll_interval``, until ``finished`` is set."""
        while not self.finished:
            await self.check_events(**params)
            await asyncio.sleep(self.configuration.poll_interval)


_RESERVED = frozenset(
    {
        *dir(Workflow),
        *("configuration", "config", "config_path", "directory", "aliases", "orchestrator_script"),
        *("orchestrator_function", "actions", "run_name", "wait_forever", "params", "task_managers"),
    }
)
