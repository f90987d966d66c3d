"""Noticing that nothing can happen any more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from motoko_core.errors import WorkflowStalled
from motoko_core.selection import describe_failure
from motoko_core.session import Session, use
from motoko_core.states import FAILURES

if TYPE_CHECKING:
    from motoko_core.engine.loop import Engine

logger = logging.getLogger("motoko")

#: Ticks without any change, any active task, or any user code at work, before the workflow is given up.
_QUIET_TICKS = 3


class StallDetector:
    """Looks, once per tick, whether the workflow can still get anywhere by itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._quiet = 0
        self._changes = -1
        #: ``changes`` when all run filters were asked again.
        self._asked = -1
        self._warned = False

    def check(self) -> WorkflowStalled | None:
        """The error that says so, when nothing has happened for some ticks; None otherwise."""
        engine = self._engine
        if engine.changes != self._changes or self._can_go_on():
            self._changes = engine.changes
            self._quiet = 0
            return None
        self._quiet += 1
        if self._quiet < _QUIET_TICKS or engine.workflow.wait_forever:
            return None
        if self._asked != engine.changes and any(watch.is_swept for watch in engine.lookout.watches):
            # A filter may read what has changed elsewhere, and its next sweep may be due much later.
            self._asked = engine.changes
            for study in engine.workflow.task_managers:
                engine.lookout.note_everything(study)
            return None
        return self._describe()

    def _can_go_on(self) -> bool:
        engine = self._engine
        if engine.is_behind:
            return True
        if engine.has_active_runs():
            self._warn_without_launcher()
            return True
        if any(not session.waiting for session in engine.work.sessions):
            return True  # main or a callback is at work, on something that we cannot see
        return any(
            watch.action.condition.outside and not engine.lookout.has_fired_for_good(watch)
            for watch in engine.lookout.watches
        )

    def _warn_without_launcher(self) -> None:
        if not self._warned and not self._engine.workflow.has_launcher():
            self._warned = True
            logger.warning(
                "tasks wait to be launched, and no launcher is at work: start one with `motoko launcher`"
            )

    def _describe(self) -> WorkflowStalled:
        engine, workflow = self._engine, self._engine.workflow
        lines = []
        for watch in engine.lookout.watches:
            on = f"{watch.action.event_name!r} on {watch.manager.study}"
            lines.append(f"{on} waits for {watch.action.condition.description}")
        lines += sorted({f"{s.title} waits for {what}" for s in engine.work.sessions for what in s.waiting})
        with use(Session("the report")):
            for manager in workflow.task_managers.values():
                index = manager.database.index
                states = index.states(workflow.run_name)
                counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items(), key=str))
                lines.append(f"{manager.study}: {counts or 'no runs'}")
                for run_id in sorted(index.candidates(frozenset({workflow.run_name}), FAILURES)):
                    run = manager.base._get_runs().entries.get(run_id)
                    if run is not None:
                        lines.append(describe_failure(manager, run))
        return WorkflowStalled(
            "nothing can happen any more: no task is active, no callback is at work, and the workflow is not "
            "finished\n  " + "\n  ".join(lines),
            hint="An action that sees the end sets workflow.finished = True. If tasks come from outside, "
            "pass --wait-forever (workflow.wait_forever = True).",
        )
