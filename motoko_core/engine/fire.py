"""Firing: the callbacks of actions, on selections and on boolean triggers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from motoko_core.engine.actions import Reference, accepted_arguments
from motoko_core.engine.firing import EngineSession, FiringSession, call
from motoko_core.engine.marks import WHOLE
from motoko_core.engine.watch import Watch
from motoko_core.interfaces import Firing

if TYPE_CHECKING:
    from motoko_core.engine.loop import Engine
    from motoko_core.selection import Task

logger = logging.getLogger("motoko")


class Firings:
    """Starts the firings of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._workflow = engine.workflow
        self._lookout = engine.lookout

    # ------------------------------------------------------------------ selections

    def fire_selections(self, watches: Iterable[Watch], now: float) -> None:
        """Start a firing for each action that has tasks which it is to be fired with now."""
        for watch in watches:
            ready = watch.ready(now)
            if not ready:
                continue
            if watch.has_gained():
                self._engine.changes += 1
            watch.begin_firing(ready, now + self._engine.poll_interval)
            self._engine.work.spawn(partial(self._fire_selection, watch, ready), watch.action)

    async def _fire_selection(self, watch: Watch, references: set[Reference]) -> None:
        try:
            await self._fire(watch, sorted(references))
        finally:
            watch.end_firing(references)
            # The firing's own changes are announced by now; what still matches fires again when due.
            for study, run_id in references:
                self._lookout.note(study, (run_id,))

    # ------------------------------------------------------------------ boolean triggers

    def fire_booleans(self, true_now: list[Watch], now: float) -> None:
        """Start a round of firings for each action whose boolean condition is true, if it is due."""
        for watch in true_now:
            registration = watch.registration
            if registration.boolean_at_work or not self._is_due(watch, now):
                continue
            registration.boolean_at_work = True
            self._engine.work.spawn(partial(self._round, watch), watch.action)

    def _is_due(self, watch: Watch, now: float) -> bool:
        if self._lookout.has_fired_for_good(watch):
            return False
        return not watch.held or now >= watch.due

    async def _round(self, first: Watch) -> None:
        """Fire for one task manager after the other; the condition is evaluated again before each turn."""
        engine = self._engine
        try:
            watches = self._lookout.beside(first)
            for watch in watches[watches.index(first) :] if first in watches else ():
                await engine.servers.ready()
                now = engine.clock()
                if not self._is_due(watch, now):
                    continue
                if watch is not first and not self._lookout.is_true(watch):
                    continue
                if not watch.held:
                    engine.changes += 1
                watch.held = True
                watch.due = now + engine.poll_interval
                await self._fire(watch, None)
        finally:
            first.registration.boolean_at_work = False
            self._lookout.note()

    # ------------------------------------------------------------------ one firing

    async def _fire(self, watch: Watch, references: list[Reference] | None) -> None:
        """Call the callback in a session of its own, and mark the tasks that it was called with."""
        engine, action = self._engine, watch.action
        attempt = 0

        async def work(_: EngineSession) -> list[Reference]:
            nonlocal attempt
            attempt += 1
            arguments = dict(self._arguments(watch))
            used: list[Reference] = [(watch.manager.study, WHOLE)]
            if references is not None:
                tasks = self._still_ready(watch, references)
                used = list(tasks)
                if not used:
                    return []
                arguments["runs"] = list(tasks.values())
            self._announce(watch, used if references is not None else [], attempt)
            try:
                get_params = action.get_params
                arguments["params"] = await call(get_params) if callable(get_params) else get_params
                await call(action.f, **accepted_arguments(action.f, arguments))
            except SystemExit as leaving:
                if not leaving.code:
                    self._mark(watch, used)
                raise
            self._mark(watch, used)
            return used

        if engine.is_ending and not action.is_error_handler:
            return
        title = self._lookout.title(watch, references or ())
        with self._lookout.blaming(watch, references or ()):
            fired = await engine.work.in_session(title, FiringSession, work)
        if action.once_per_run:
            watch.registration.marked.update(fired)

    def _arguments(self, watch: Watch) -> dict[str, Any]:
        return {
            **self._engine.params,
            "workflow": self._workflow,
            "task_manager": watch.manager,
            "event_name": watch.action.event_name,
        }

    def _announce(self, watch: Watch, used: list[Reference], attempt: int) -> None:
        name, study = watch.action.event_name, watch.manager.study
        runs = tuple(f"{of}.{i}" for of, i in used)
        logger.info("fire: event=%s task_manager=%s runs=%s", name, study, list(runs) or True)
        firing = Firing(event_name=name, task_manager=study, runs=runs, attempt=attempt)
        self._workflow.plugins.observe("motoko_event_fired", workflow=self._workflow, firing=firing)

    def _mark(self, watch: Watch, used: list[Reference]) -> None:
        if watch.action.once_per_run:
            self._lookout.marks.write(watch.action, used)

    def _still_ready(self, watch: Watch, references: list[Reference]) -> dict[Reference, Task]:
        """Those that still match in the session of the firing, and are not marked in it."""
        marked: set[Reference] = set()
        if watch.action.once_per_run:
            marked = self._lookout.marks.among(watch.action, references)
            watch.registration.marked |= marked
        return watch.tasks(self._workflow, [r for r in references if r not in marked])
