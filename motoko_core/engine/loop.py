"""The event loop of an orchestrator: when the actions are looked at, and what ends the workflow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from motoko_core.engine.actions import accepted_arguments, first_parameter
from motoko_core.engine.blame import blaming, is_about_failed_runs
from motoko_core.engine.fire import Firings
from motoko_core.engine.firing import EngineSession, call
from motoko_core.engine.handlers import Handlers
from motoko_core.engine.look import Lookout
from motoko_core.engine.servers import Servers
from motoko_core.engine.stall import StallDetector
from motoko_core.engine.work import Work
from motoko_core.errors import WorkflowAborted
from motoko_core.interfaces import ErrorHandler
from motoko_core.states import is_active
from motoko_core.study.changes import Batch, Changes
from motoko_core.study.feed import ChangeFeed, feed_of, fill_indexes

if TYPE_CHECKING:
    from motoko_core.journal import Journal
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

logger = logging.getLogger("motoko")

#: How long user code that is not waiting for tasks may go on after ``workflow.finished = True``.
_GRACE_S = 10.0
#: All runs are compared with the database once in so many seconds.
_RESCAN_S = 3600.0


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
        self.servers = Servers((), ())
        self._feeds: dict[TaskManager, ChangeFeed] = {}
        self._changes: dict[TaskManager, Changes] = {}
        self.handlers = Handlers(
            workflow,
            handlers,
            fail=self.fail,
            wake=self._tell,
            is_behind=lambda manager: bool(self._changes[manager]),
        )
        self._next_rescan = self.clock() + _RESCAN_S

    # ------------------------------------------------------------------ running

    async def run(self, main: Callable[..., Any]) -> None:
        """Call ``main``, fire the actions, and return when the workflow is finished.

        :raises MotokoError: what ended it otherwise.
        """
        loop = asyncio.get_running_loop()
        managers = self.workflow.task_managers.values()
        await fill_indexes(manager.database for manager in managers)
        with ExitStack() as stack:
            for manager in managers:
                feed = self._feeds[manager] = stack.enter_context(feed_of(manager.database))
                self._changes[manager] = stack.enter_context(feed.changes(self.wake))
            stack.callback(self.workflow.vars.watch(self._threadsafe_note(loop)))
            databases = [*(manager.database for manager in managers), self.workflow.vars.database]
            self.servers = Servers(list(self._feeds.values()), databases)
            for feed in self._feeds.values():
                await feed.current()
            await self.servers.ready()
            self.handlers.begin()
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
                await self.work.cancel(self.work.tasks)
        if self.error is None or self._is_clean_exit():
            self.servers.release()
        if self.error is not None:
            raise self.error

    async def _loop(self, is_over: Callable[[], bool], *, only_error_handlers: bool = False) -> None:
        next_tick = self.clock()
        while True:
            await self._until_ready(or_ending=not only_error_handlers)
            if is_over():
                return
            now = self.clock()
            tick = now >= next_tick
            if tick:
                next_tick = now + self.poll_interval
                self._now_and_then(now)
            self.handlers.ask_again()
            self._hear()
            self._look(now, tick=tick, only_error_handlers=only_error_handlers)
            if is_over():
                return
            if tick and (stalled := self._stall.check()):
                self.fail(stalled)
                return
            await self._sleep(min([next_tick, *self._dues(now)]) - self.clock())

    async def _until_ready(self, *, or_ending: bool) -> None:
        """Until the servers answer. What ends the workflow does not wait for them."""
        while not self.servers.are_ready and not (or_ending and self.is_ending):
            ready = asyncio.ensure_future(self.servers.ready())
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait({ready, woken}, return_when=asyncio.FIRST_COMPLETED)
                self._wake.clear()  # we look in any case
                if ready.done():
                    ready.result()
            finally:
                ready.cancel()
                woken.cancel()

    def _look(self, now: float, *, tick: bool, only_error_handlers: bool) -> None:
        true_now = self.lookout.look(now, tick=tick, only_error_handlers=only_error_handlers)
        self._hear()  # what the look came upon: observers are told of a change before it fires something
        if self.is_ending and not only_error_handlers:
            return
        watches = self.lookout.watches
        if only_error_handlers:  # each is heard once
            watches = [w for w in watches if w.action.is_error_handler and w.has_gained()]
            true_now = [w for w in true_now if not w.held]
        self._firings.fire_selections(watches, now)
        self._firings.fire_booleans(true_now, now)

    def _dues(self, now: float) -> Iterable[float]:
        sweep = self.lookout.sweeps.due
        dues = [w.due for w in self.lookout.watches if w.due > now and w.has_more()]
        return dues if sweep is None else [*dues, sweep]

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

    def _tell(self, manager: TaskManager, run_ids: Collection[int]) -> None:
        """The error handlers were asked about some runs: others may go on with them."""
        self.lookout.note(manager.study, run_ids)
        self._feeds[manager].wake(run_ids)

    def _note(self) -> None:
        self.changes += 1
        self.lookout.note()
        self.wake()

    def _threadsafe_note(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        pulse = self.workflow.vars.database.pulse

        def note() -> None:
            pulse.heard()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._note)

        return note

    def _hear(self) -> None:
        """Take in which runs have changed."""
        for manager, changes in self._changes.items():
            batch = changes.take()
            if batch:
                self._take_in(manager, batch)

    def _take_in(self, manager: TaskManager, batch: Batch) -> None:
        if batch.rescan:
            self.lookout.note_everything(manager.study)
        self.lookout.note(manager.study, (change.run_id for change in batch))
        self._note()
        self.handlers.take_in(manager, batch)
        if batch.changes:
            self.workflow.plugins.observe(
                "motoko_runs_changed", workflow=self.workflow, task_manager=manager, changes=batch.changes
            )

    def _now_and_then(self, now: float) -> None:
        """What does not depend on announcements: they are hints, and a launcher can die."""
        self.handlers.now_and_then()
        if now >= self._next_rescan:
            self._next_rescan = now + _RESCAN_S
            for feed in self._feeds.values():
                feed.rescan()

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
        return not actions or not (self.is_behind or self.work.tasks or self.has_active_runs())

    def _error_handlers_were_heard(self) -> bool:
        """Failed runs end the workflow also through whoever awaits them; their handlers come first."""
        return not self.work.error_handlers and not self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether something has happened that was not looked at yet."""
        feeds = self._feeds.values()
        if self.lookout.is_behind or self.handlers.have_more_to_say:
            return True
        return any(self._changes.values()) or any(f.is_behind for f in feeds)

    def has_active_runs(self) -> bool:
        """Whether a run of this workflow waits for a launcher, or is in hand, whatever it says of itself."""
        if self.handlers.await_reasons:
            return True
        name = self.workflow.run_name
        managers = self.workflow.task_managers.values()
        return any(is_active(state) for m in managers for state in m.database.index.states(name))

    def _is_clean_exit(self) -> bool:
        return isinstance(self.error, SystemExit) and not self.error.code

    async def _let_work_end(self) -> None:
        """Let user code that does not wait for tasks come to its end."""
        end, error = self.clock() + _GRACE_S, self.error
        while self.work.tasks and not self.work.all_wait():
            if self.clock() >= end and not self.work.is_unsettled:  # `finished` may not have been committed
                return
            await self._sleep(0.05)
            if self.servers.are_ready:
                self._hear()
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
        handlers = list(self.handlers.in_order)

        async def work(_: EngineSession) -> None:
            # After a conflict `main` runs again from its top, and registers everything again.
            workflow.actions.clear()
            workflow.actions.update({task: dict(actions) for task, actions in before.items()})
            self.handlers.in_order[:] = handlers
            await call(main, workflow, **arguments)

        with blaming("main", workflow.configuration.directory, main):
            await self.work.in_session("main", EngineSession, work)
