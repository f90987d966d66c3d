"""User code at work: main and the callbacks, each an asyncio task with a session of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from motoko_core.engine.actions import Action
from motoko_core.engine.firing import EngineSession, Lane, in_session
from motoko_core.errors import ActionError

if TYPE_CHECKING:
    from motoko_core.engine.loop import Engine

logger = logging.getLogger("motoko")
T = TypeVar("T")

#: Cancelled user code that does not end is cancelled again, once per second, so often in all.
_CANCELLATIONS = 10


class Work:
    """What is under way for an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lane = Lane()
        self._cancelled: set[asyncio.Task[None]] = set()
        self._committed_finish = False
        #: What is at work; None stands for main.
        self.tasks: dict[asyncio.Task[None], Action | None] = {}
        self.sessions: set[EngineSession] = set()

    @property
    def error_handlers(self) -> list[asyncio.Task[None]]:
        """The error handlers at work."""
        return [task for task, action in self.tasks.items() if action and action.is_error_handler]

    def all_wait(self) -> bool:
        """Whether all user code waits for tasks."""
        return bool(self.sessions) and all(session.waiting for session in self.sessions)

    @property
    def is_unsettled(self) -> bool:
        """Whether a commit may not have happened, and its work have to be done again."""
        return any(session.is_unsettled for session in self.sessions)

    def spawn(self, work: Callable[[], Awaitable[None]], action: Action | None = None) -> asyncio.Task[None]:
        """Run user code beside the loop; an exception ends the workflow."""

        async def guarded() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                if asyncio.current_task() not in self._cancelled:
                    self._engine.fail(_cancelled_from_within(action))
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001  raised by run(), after everything stopped
                self._engine.fail(error)

        def done(task: asyncio.Task[None]) -> None:
            self.tasks.pop(task, None)
            self._engine.wake()

        task = asyncio.create_task(guarded(), name=action.event_name if action else "main")
        self.tasks[task] = action
        task.add_done_callback(done)
        return task

    async def in_session(
        self,
        title: str,
        make: Callable[[str], EngineSession],
        work: Callable[[EngineSession], Awaitable[T]],
    ) -> T:
        """Like :func:`~motoko_core.engine.firing.in_session`, with the session known while it lasts."""
        mine: list[EngineSession] = []

        def made(text: str) -> EngineSession:
            if mine and mine[-1].sets_finished:
                # The attempt that said so never happened.
                self._engine.workflow.finished = self._committed_finish
            self.sessions.difference_update(mine)
            session = make(text)
            session.journal = self._engine.journal
            session.servers = self._engine.servers
            session.task = asyncio.current_task()
            session.revoked = session.task in self._cancelled
            mine.append(session)
            self.sessions.add(session)
            return session

        try:
            result = await in_session(title, self._lane, made, work)
            self._committed_finish |= mine[-1].sets_finished
            return result
        finally:
            self.sessions.difference_update(mine)

    async def cancel(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Cancel user code, and wait until it has ended; what it has not committed by now, it never will."""
        tasks = set(tasks)
        self._cancelled |= tasks
        for session in self.sessions:
            session.revoked = session.revoked or session.task in tasks
        for _ in range(_CANCELLATIONS):
            left = [task for task in tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            # `asyncio.wait_for` of Python 3.10 and 3.11 can lose a cancellation; user code can, too.
            await asyncio.wait(left, timeout=1)
        logger.error("user code goes on although it was cancelled %d times", _CANCELLATIONS)


def _cancelled_from_within(action: Action | None) -> ActionError:
    what = f"the action {action.event_name!r}" if action else "main"
    return ActionError(
        f"{what} was cancelled by what it awaited",
        where=action.place if action else None,
        hint="Something in it raised asyncio.CancelledError; catch it there.",
    )
