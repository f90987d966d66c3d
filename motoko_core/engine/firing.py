"""Calling user code: in a session of its own, and once more after a conflict."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ZEO.Exceptions import ClientDisconnected

from motoko_core.engine.blame import UNDOING, is_conflict
from motoko_core.journal import OutcomeUnknown
from motoko_core.session import (
    MAX_ATTEMPTS,
    CreatesTasks,
    Session,
    backoff_s,
    current_session,
    give_up,
    turns,
    use,
)

if TYPE_CHECKING:
    from motoko_core.engine.servers import Servers

logger = logging.getLogger("motoko")
T = TypeVar("T")

#: How long a piece of work that was in a conflict may keep the others that were out of the way: so many
#: seconds at the second attempt, twice as many at each further one, up to the limit.
_LANE_TIMEOUT_S = 1.0
_LANE_LIMIT_S = 60.0
_ASK_AGAIN_S = 0.2


class EngineSession(Session):
    """A session that the engine commits, and whose work it calls again after a conflict."""

    # For longer the event loop is not held up: the work is called again when its turn has come.
    patience_s = 0.2

    def __init__(self, title: str) -> None:
        super().__init__(title)
        #: What the work runs in.
        self.task: asyncio.Task[Any] | None = None
        #: The work was cancelled: what it has not committed by now, it never will, even if it goes on.
        self.revoked = False
        #: A commit within the work was in conflict. The work cannot go on from there, even if it tries.
        self.conflict: Exception | None = None
        self._lost: OutcomeUnknown | None = None
        #: The work has set ``workflow.finished``.
        self.sets_finished = False
        #: Waits until the servers answer.
        self.servers: Servers | None = None

    @property
    def is_unsettled(self) -> bool:
        """Whether the answer to the last commit was lost, and what follows from that has not begun yet."""
        return self._lost is not None

    async def ready(self) -> None:
        if self.servers is not None:
            await self.servers.ready()

    def commit(self) -> None:
        if self.revoked:
            self.abort()
            raise asyncio.CancelledError
        if self.conflict is not None:
            self.abort()
            raise self.conflict
        try:
            super().commit()
        except UNDOING as error:
            self.conflict = error
            raise

    def begin(self) -> None:
        super().begin()
        self._lost = None

    async def recover(self) -> None:
        """Make whole what a commit over several databases has left half-finished."""
        if self.journal is not None and self.journal.recover():
            await self._hear_of_what_was_mended()

    async def _hear_of_what_was_mended(self) -> None:
        # By clients of its own: we could know of it in one database, and not in another.
        if self.servers is not None:
            self.servers.doubt()
            await self.servers.ready()

    async def commit_once(self) -> None:
        """Commit; if the answer is lost, find out what has happened, before anything is done again.

        :raises OutcomeUnknown: it has not happened.
        """
        lost, is_doomed = None, self.conflict is not None
        try:
            self.commit()
        except OutcomeUnknown as error:
            if is_doomed:
                raise  # it is about an earlier commit
            lost = error
        if lost is not None and not await self._has_happened(lost):
            raise lost

    async def checkpoint_once(self) -> None:
        """Like :meth:`commit_once`, and go on in a new transaction.

        :raises OutcomeUnknown: it has not happened; or user code holds new runs or jobs, which are cut off
            from the database when the answer is lost, and has to get them again.
        """
        await self.commit_once()
        held = (weak() for weak in self._handed)
        if self._lost is not None and any(it is not None and it._p_jar is None for it in held):
            raise self._lost
        self.begin()

    async def _has_happened(self, lost: OutcomeUnknown) -> bool:
        """Whether a commit has happened; wait for the servers to find out."""
        self._lost, self.conflict = lost, None
        while True:
            await self.ready()
            try:
                happened = lost.ask()
            except ClientDisconnected:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                break
        outcome = "which has happened" if happened else "which has not happened"
        logger.warning("%s: the connection was lost in a commit, %s", self.title, outcome)
        await self._hear_of_what_was_mended()
        return happened

    def note_conflict(self, error: Exception) -> None:
        self.conflict = error


class FiringSession(EngineSession):
    """The session of a firing: its transaction is the engine's business, also for ``@event``."""

    managed = True


class Lane:
    """Lets firings that were in conflict with each other go one at a time, until their first commit.

    Sixty-four callbacks that create tasks in one study all want the next id. The first to commit wins; if
    the others tried again all at once, they would be in conflict again.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, session: Session, attempt: int) -> AsyncIterator[None]:
        timeout = min(_LANE_LIMIT_S, _LANE_TIMEOUT_S * 2 ** (attempt - 2))
        acquiring = asyncio.ensure_future(self._lock.acquire())
        try:
            # Not wait_for: in Python 3.10 and 3.11 it can lose a cancellation.
            await asyncio.wait({acquiring}, timeout=timeout)
        except asyncio.CancelledError:
            if not acquiring.cancel():
                self._lock.release()
            raise
        if not acquiring.done():
            acquiring.cancel()
            yield  # somebody holds it for longer than a transaction should last: take the risk
            return
        released = False

        def release(committed: bool = False) -> None:
            nonlocal released
            if not released:
                released = True
                self._lock.release()

        session.after.append(release)
        try:
            yield
        finally:
            release()


async def call(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a plain or an async function."""
    result = f(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


async def in_session(
    title: str,
    lane: Lane,
    make_session: Callable[[str], EngineSession],
    work: Callable[[EngineSession], Awaitable[T]],
) -> T:
    """Run ``work`` in a session of its own and commit; after a conflict, run it again from its top.

    What was done before a clean ``sys.exit()`` counts, as at the end of the work.

    :raises ~motoko_core.errors.ConflictRetriesExceeded: after too many conflicts.
    """
    places: set[CreatesTasks] = set()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        session = make_session(title)
        async with contextlib.AsyncExitStack() as stack:
            if attempt > 1:
                await stack.enter_async_context(lane.turn(session, attempt))
            await session.ready()
            try:
                leaving: SystemExit | None = None
                if attempt > 1:
                    await session.recover()
                # The turns end when the work awaits something: it has to begin at once.
                await stack.enter_async_context(turns(places, session))
                stack.enter_context(use(session))
                try:
                    result = await work(session)
                except SystemExit as exit_:
                    if exit_.code:
                        raise
                    leaving = exit_
                await session.commit_once()
            except Exception as error:
                if session.conflict is None and not is_conflict(error):
                    raise
                logger.debug("%s: conflict in attempt %d: %s", title, attempt, error)
                if attempt == MAX_ATTEMPTS:
                    raise give_up(title, error) from error
                places = session.creates_in
            else:
                if leaving is not None:
                    raise leaving
                return result
        await asyncio.sleep(backoff_s(attempt))
    raise AssertionError("unreachable")


def event(func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Log that an action was fired, and give the coroutine the transaction treatment.

    When the engine fires it, the engine's transaction is the one that counts. Called directly, it commits
    what came before, commits its own work at the end, and is called again after a conflict.
    """
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        logger.info("fire: %s", name)
        session = current_session()
        if session.managed:
            return await call(func, *args, **kwargs)
        session.checkpoint()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                result = await call(func, *args, **kwargs)
                if isinstance(session, EngineSession):
                    await session.checkpoint_once()
                else:
                    session.checkpoint()
            except Exception as error:
                session.abort()
                session.begin()
                if not is_conflict(error):
                    raise
                if attempt == MAX_ATTEMPTS:
                    raise give_up(name, error) from error
                if isinstance(session, EngineSession):
                    session.conflict = None  # it is mended here
                await asyncio.sleep(backoff_s(attempt))
                async with turns(session.creates_in, session):
                    session.abort()
                    session.begin()
            else:
                return result
        raise AssertionError("unreachable")

    return wrapped


def no_action(*args: Any, **kwargs: Any) -> None:
    """Do nothing: a callback for actions and error handlers that need none."""
