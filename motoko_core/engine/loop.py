"""The event loop of an orchestrator: when the actions are looked at, and what ends the workflow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from motoko_core.engine import failures
from motoko_core.engine.actions import accepted_arguments, first_parameter
from motoko_core.engine.blame import blaming, is_about_failed_runs
from motoko_core.engine.fire import Firings
from motoko_core.engine.firing import EngineSession, call
from motoko_core.engine.look import Lookout
from motoko_core.engine.stall import StallDetector
from motoko_core.engine.work import Work
from motoko_core.errors import WorkflowAborted
from motoko_core.interfaces import ErrorHandler, RunChange
from motoko_core.states import is_active, is_failure
from motoko_core.study.feed import feed_of

if TYPE_CHECKING:
    from motoko_core.journal import Journal
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

logger = logging.getLogger("motoko")

#: How long user code that is not waiting for tasks may go on after ``workflow.finished = True``.
_GRACE_S = 10.0
#: All runs are compared with the database once in so many seconds, and for at most this part of the time.
_RESCAN_S = 3600.0
_RESCAN_SHARE = 0.05


class Engine:
    """Runs one orchestrator to its end.

    :param params: the runtime parameters of ``main`` and the callbacks.
    :param handlers: the error handlers, asked in this order.
    :param journal: makes commits over several databases survive ``kill -9``.
    :param clock: seconds, monotonic; what is due is decided by it.
    """

    def __init__(
        self,
        workflow: Workflow,
        params: dict[str, Any],
        handlers: Sequence[ErrorHandler],
        *,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workflow = workflow
        self.params = params
        self.handlers = list(handlers)
        self.journal = journal
        self.clock = clock
        self.poll_interval = workflow.configuration.poll_interval
        self.work = Work(self)
        #: How often something happened; the stall detector looks at it.
        self.changes = 0
        self.error: BaseException | None = None
        self.lookout = Lookout(self)
        self._firings = Firings(self)
        self._stall = StallDetector(self)
        self._main_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopped = False
        #: Runs that say that they failed, and of which the launcher is to say why.
        self._unsettled: dict[TaskManager, set[int]] = {m: set() for m in workflow.task_managers.values()}
        #: Failed runs about which every handler has had its say.
        self._for_good: set[tuple[TaskManager, int]] = set()
        self._next_rescan = self.clock() + _RESCAN_S

    # ------------------------------------------------------------------ running

    async def run(self, main: Callable[..., Any]) -> None:
        """Call ``main``, fire the actions, and return when the workflow is finished.

        :raises MotokoError: what ended it otherwise.
        """
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            for manager in self.workflow.task_managers.values():
                feed = stack.enter_context(feed_of(manager.database))
                stack.callback(feed.subscribe(self._subscriber(manager)))
            stack.callback(self.workflow.vars.watch(self._threadsafe_note(loop)))
            self._ask_about_earlier_failures(self.handlers)
            self._main_task = self.work.spawn(lambda: self._main(main))
            try:
                while not self._is_over():
                    await self._loop(self._is_over)
                    if self.error is None or self._is_clean_exit():
                        await self._let_work_end()
                if is_about_failed_runs(self.error):
                    await self.work.cancel(self.work.tasks.keys() - self.work.error_handlers)
                    await self._loop(self._error_handlers_were_heard, only_error_handlers=True)
            finally:
                self._stopped = True
                await self.work.cancel(self.work.tasks)
        if self.error is not None:
            raise self.error

    async def _loop(self, is_over: Callable[[], bool], *, only_error_handlers: bool = False) -> None:
        next_tick = self.clock()
        while not is_over():
            now = self.clock()
            tick = now >= next_tick
            if tick:
                next_tick = now + self.poll_interval
                self._now_and_then(now)
            self._look(now, tick=tick, only_error_handlers=only_error_handlers)
            if is_over():
                return
            if tick and (stalled := self._stall.check()):
                self.fail(stalled)
                return
            await self._sleep(min([next_tick, *self._dues(now)]) - self.clock())

    def _look(self, now: float, *, tick: bool, only_error_handlers: bool) -> None:
        true_now = self.lookout.look(now, tick=tick, only_error_handlers=only_error_handlers)
        if self.is_ending and not only_error_handlers:
            return
        watches = self.lookout.watches
        if only_error_handlers:  # each is heard once
            watches = [w for w in watches if w.action.is_error_handler and w.has_gained()]
            true_now = [w for w in true_now if not w.held]
        self._firings.fire_selections(watches, now)
        self._firings.fire_booleans(true_now, now)

    def _dues(self, now: float) -> Iterable[float]:
        return [w.due for w in self.lookout.watches if w.due > now and w.has_more()]

    async def _sleep(self, seconds: float) -> None:
        """Until something happens, at most so many seconds. Who wakes the loop during a look is heard."""
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self.wake)
        await asyncio.sleep(0)  # waiting for an event that is set lets nobody else work
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            self._wake.clear()

    def wake(self) -> None:
        """Look again: something happened."""
        self._wake.set()

    def _note(self) -> None:
        self.changes += 1
        self.lookout.note()
        self.wake()

    def _threadsafe_note(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        def note() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._note)

        return note

    def _subscriber(self, manager: TaskManager) -> Callable[[Sequence[RunChange]], None]:
        def changed(changes: Sequence[RunChange]) -> None:
            if self._stopped:
                return
            self.lookout.note(manager.study, (change.run_id for change in changes))
            self._note()
            failed = self._failed(manager, changes)
            if failed:
                self._ask(self.handlers, manager, failed)
            self.workflow.plugins.observe(
                "motoko_runs_changed", workflow=self.workflow, task_manager=manager, changes=changes
            )

        return changed

    def _failed(self, manager: TaskManager, changes: Sequence[RunChange]) -> list[int]:
        """Runs whose failure is to be decided about now: when the launcher has written the reason."""
        rows, unsettled = manager.database.index.rows, self._unsettled[manager]
        failed = []
        for change in changes:
            was_unsettled = change.run_id in unsettled
            unsettled.discard(change.run_id)
            if not is_failure(change.after):
                self._for_good.discard((manager, change.run_id))
                continue
            if is_failure(change.before) and not was_unsettled:
                continue
            if manager.is_settling(rows.get(change.run_id, {})):
                unsettled.add(change.run_id)
            else:
                failed.append(change.run_id)
        return failed

    def _now_and_then(self, now: float) -> None:
        """What does not depend on announcements: they are hints, and a launcher can die."""
        for manager, unsettled in self._unsettled.items():
            if unsettled and not self.workflow.has_launcher():
                failed = sorted(unsettled)
                unsettled.clear()
                self._ask(self.handlers, manager, failed)
                feed_of(manager.database).wake(failed)
        if now >= self._next_rescan:
            for manager in self.workflow.task_managers.values():
                manager.database.index.rescan()
            self._next_rescan = now + max(_RESCAN_S, (self.clock() - now) / _RESCAN_SHARE)

    # ------------------------------------------------------------------ the end

    @property
    def is_ending(self) -> bool:
        """Whether nothing new is to be begun."""
        return self.error is not None or self.workflow.finished

    def _is_over(self) -> bool:
        if self.is_ending:
            return True
        if self._main_task is not None and not self._main_task.done():
            return False
        actions = [a for by_name in self.workflow.actions.values() for a in by_name.values()]
        if not all(action.is_error_handler for action in actions):
            return False
        # Error handlers alone cannot finish a workflow: it ends when no task is left that could fail.
        return not actions or not (self.lookout.is_behind or self.work.tasks or self.has_active_runs())

    def _error_handlers_were_heard(self) -> bool:
        """Failed runs end the workflow also through whoever awaits them; their handlers come first."""
        return not self.work.error_handlers and not self.lookout.is_behind

    def has_active_runs(self) -> bool:
        """Whether a run of this workflow waits for a launcher, or is in hand."""
        name = self.workflow.run_name
        managers = self.workflow.task_managers.values()
        return any(is_active(state) for m in managers for state in m.database.index.states(name))

    def _is_clean_exit(self) -> bool:
        return isinstance(self.error, SystemExit) and not self.error.code

    async def _let_work_end(self) -> None:
        """Let user code that does not wait for tasks come to its end."""
        end, error = self.clock() + _GRACE_S, self.error
        while self.work.tasks and not self.work.all_wait() and self.clock() < end:
            await self._sleep(0.05)
            if self.error is not error or not self._is_over():
                return  # it failed; or what set `finished` was in a conflict, and is tried again

    def fail(self, error: BaseException) -> None:
        """End the workflow with an error; the first one counts, but an error handler's before a waiter's."""
        if self.error is None or (
            isinstance(error, WorkflowAborted)
            and is_about_failed_runs(self.error)
            and not isinstance(self.error, WorkflowAborted)
        ):
            self.error = error
        self.wake()

    async def _main(self, main: Callable[..., Any]) -> None:
        workflow = self.workflow
        arguments = accepted_arguments(main, self.params)
        arguments.pop(first_parameter(main) or "", None)
        before = {task: dict(actions) for task, actions in workflow.actions.items()}
        handlers = list(self.handlers)

        async def work(_: EngineSession) -> None:
            # After a conflict `main` runs again from its top, and registers everything again.
            workflow.actions.clear()
            workflow.actions.update({task: dict(actions) for task, actions in before.items()})
            self.handlers[:] = handlers
            await call(main, workflow, **arguments)

        with blaming("main", workflow.configuration.directory, main):
            await self.work.in_session("main", EngineSession, work)

    # ------------------------------------------------------------------ error handlers

    def is_undecided(self, manager: TaskManager, run_id: int) -> bool:
        """Whether handlers have still to be asked about a failed run."""
        return bool(self.handlers) and (manager, run_id) not in self._for_good

    def add_handler(self, handler: ErrorHandler) -> None:
        """Ask one more handler, after the others, also about what has failed before."""
        self.handlers.append(handler)
        self._ask_about_earlier_failures([handler])

    def _ask_about_earlier_failures(self, handlers: Sequence[ErrorHandler]) -> None:
        for manager in self.workflow.task_managers.values():
            rows = manager.database.index.rows
            failed = [i for i, row in list(rows.items()) if is_failure(row.get("state"))]
            if failed:
                self._ask(handlers, manager, failed)

    def _ask(self, handlers: Sequence[ErrorHandler], manager: TaskManager, run_ids: Sequence[int]) -> None:
        self._for_good.update((manager, run_id) for run_id in run_ids)
        if not handlers:
            return
        functions = [handler.decide for handler in handlers]
        try:
            with blaming("an error handler", self.workflow.configuration.directory, *functions):
                failures.handle(manager, run_ids, handlers)
        except (Exception, SystemExit) as error:  # noqa: BLE001  raised by run(), after everything stopped
            self.fail(error)
