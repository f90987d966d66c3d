"""The change feed: which runs changed, delivered into an event loop as it happens.

The server's announcements arrive in ZEO's network thread. They make a thread beside the loop read what
changed into the index, and the index tells everybody who listens in the loop. There is no polling; a slow
one runs anyway, because an announcement is a hint and the database is the truth. docs/study-layer.md has
the whole picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSError

from motoko_core.study.changes import LIMIT, Changes
from motoko_core.study.threads import in_thread

if TYPE_CHECKING:
    from motoko_core.interfaces import RunChange
    from motoko_core.study.database import StudyDatabase

logger = logging.getLogger("motoko.feed")

#: How long a waiter trusts the announcements before it looks for itself.
SAFETY_S = 30.0
#: The announcements that come within the window after a look are taken in together. The window is so long
#: that looking takes this part of the time while announcements pour in, but at most so many seconds.
_SHARE = 0.2
_WINDOW_LIMIT_S = 0.05
_RETRY_S = 1.0


def window_s(cost_s: float) -> float:
    """How long announcements are gathered after a look that took ``cost_s`` seconds."""
    return min(_WINDOW_LIMIT_S, cost_s * (1 / _SHARE - 1))


class ChangeFeed:
    """The changes of one study, in one event loop; opened by the first user, closed by the last."""

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        #: Tests put their own here.
        self._later: Callable[[float, Callable[[], None]], object] = self._loop.call_later
        self._users = 0
        # Something was announced that no read has begun for yet.
        self._announced = False
        self._rescan_due = False
        self._losses = 0
        self._reading: asyncio.Future[None] | None = None
        self._resting = False
        self._trouble: str | None = None
        self._error: BaseException | None = None
        # Who waits for the next read to end, and who for the one that is under way.
        self._asked: list[asyncio.Future[None]] = []
        self._answering: list[asyncio.Future[None]] = []
        # What each look of the index has found, and the losses that it had counted by then.
        self._heard: deque[tuple[Sequence[RunChange], int]] = deque()
        self._consumers: list[Changes] = []
        self._watchers: dict[int, set[Watcher]] = {}
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> ChangeFeed:
        self._users += 1
        if self._users == 1:
            index = self._index = self._study.index
            self._losses = index.losses
            stop = index.on_announcement(self._on_announcement)
            index.listeners.append(self._on_changes)

            def undo() -> None:
                stop()
                index.listeners.remove(self._on_changes)

            self._undo = undo
            self.look()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._users -= 1
        if self._users == 0:
            self._undo()
            _feeds.pop((self._loop, self._study), None)

    # ------------------------------------------------------------------ for consumers

    @contextlib.contextmanager
    def changes(self, wake: Callable[[], None] = lambda: None, *, limit: int = LIMIT) -> Iterator[Changes]:
        """The changes from now on: an asynchronous iterator of batches.

        :param wake: called in the loop when there may be something to take, and when a look is over.
        :param limit: runs whose changes are kept; more make a batch that says ``rescan``.
        """
        consumer = Changes(wake, limit=limit)
        self._consumers.append(consumer)
        try:
            yield consumer
        finally:
            self._consumers.remove(consumer)

    @contextlib.contextmanager
    def watching(self, run_ids: Iterable[int]) -> Iterator[Watcher]:
        """Note which of these runs change, for as long as the context lasts."""
        watcher = Watcher(self, frozenset(run_ids))
        for run_id in watcher.run_ids:
            self._watchers.setdefault(run_id, set()).add(watcher)
        try:
            yield watcher
        finally:
            for run_id in watcher.run_ids:
                watching = self._watchers[run_id]
                watching.discard(watcher)
                if not watching:
                    del self._watchers[run_id]

    @property
    def is_reading(self) -> bool:
        """Whether a thread reads from the server, and holds the index's lock."""
        return self._reading is not None

    @property
    def is_behind(self) -> bool:
        """Whether something was announced that the consumers were not told yet."""
        return self._announced or self.is_reading or bool(self._heard)

    async def current(self) -> None:
        """Return when all that was announced so far is in the index, however long the server is away."""
        if self._error is not None:
            raise self._error
        self._deliver()
        if self._announced or self.is_reading:
            future = self._loop.create_future()
            (self._asked if self._announced else self._answering).append(future)
            await future

    async def idle(self) -> None:
        """Return when no thread reads."""
        while self._reading is not None:
            await asyncio.wait({self._reading})

    def look(self) -> None:
        """Look for changes, whether any were announced or not."""
        self._announced = True
        self._step()

    def rescan(self) -> None:
        """Compare every run with the database, beside the loop."""
        self._rescan_due = True
        self.look()

    def wake(self, run_ids: Iterable[int]) -> None:
        """Have those who wait for these runs look again."""
        for run_id in run_ids:
            for watcher in self._watchers.get(run_id, ()):
                watcher.note(run_id)

    # ------------------------------------------------------------------ looking

    def _on_announcement(self) -> None:
        # In the network thread. One step serves all announcements until it runs.
        self._study.pulse.heard()
        if not self._announced:
            self._announced = True
            self._call(self._step)

    def _call(self, f: Callable[..., object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits in it
            self._loop.call_soon_threadsafe(f)

    def _step(self) -> None:
        """Begin to look, unless there is nothing to look for, or it is too early."""
        if not self._announced or self.is_reading or self._resting or self._users == 0:
            return
        # What is announced from here on may be too late for this look.
        self._announced = False
        self._answering, self._asked = self._asked, []
        rescan, self._rescan_due = self._rescan_due, False
        began = time.perf_counter()
        reading = self._reading = in_thread(self._index.rescan if rescan else self._index.refresh)

        def done(_: object) -> None:
            self._reading = None
            error = None if reading.cancelled() else reading.exception()
            if self._users == 0:
                return
            if error is None:
                self._trouble = None
                self._deliver()
                for future in self._answering:
                    if not future.done():
                        future.set_result(None)
                self._rest(window_s(time.perf_counter() - began))
                return
            self._asked += self._answering
            if isinstance(error, (ClientDisconnected, POSError)):
                self._report(error)
                self._rescan_due |= rescan
                self._announced = True
                self._rest(_RETRY_S)
            else:
                self._fail(error)

        reading.add_done_callback(done)

    def _report(self, error: Exception) -> None:
        if isinstance(error, ClientDisconnected):
            self._study.pulse.lost()
        elif self._trouble != repr(error):
            self._trouble = repr(error)
            logger.warning("%s cannot be read (%r); trying again", self._study.server.title, error)

    def _rest(self, seconds: float) -> None:
        def over() -> None:
            self._resting = False
            self._step()

        self._resting = True
        self._later(seconds, over)

    def _fail(self, error: BaseException) -> None:
        """The index is broken, not the connection: whoever relies on it has to know."""
        self._error = error
        for consumer in self._consumers:
            consumer.fail(error)
        for future in self._asked:
            if not future.done():
                future.set_exception(error)
        for watchers in list(self._watchers.values()):
            for watcher in watchers:
                watcher.fail(error)

    # ------------------------------------------------------------------ telling

    def _on_changes(self, changes: Sequence[RunChange]) -> None:
        # In whatever thread made the index look; the index tells one after the other.
        self._heard.append((changes, self._index.losses))
        if threading.get_ident() == self._thread:
            self._deliver()
        else:
            self._call(self._deliver)

    def _deliver(self) -> None:
        while self._heard:
            changes, losses = self._heard.popleft()
            lost, self._losses = losses != self._losses, losses
            for consumer in list(self._consumers):
                consumer.put(changes, rescan=lost)
            # The index has compared the values that it keeps; only the database knows the others.
            self.wake(list(self._watchers) if lost else (change.run_id for change in changes))
        for consumer in list(self._consumers):
            consumer.put()


class Watcher:
    """Which of some runs have changed; made by :meth:`ChangeFeed.watching`."""

    def __init__(self, feed: ChangeFeed, run_ids: frozenset[int]) -> None:
        self.run_ids = run_ids
        self._feed = feed
        self._changed: set[int] = set()
        self._error: BaseException | None = None
        self._something = asyncio.Event()

    def note(self, run_id: int) -> None:
        self._changed.add(run_id)
        self._something.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._something.set()

    async def changed(self, timeout_s: float = SAFETY_S) -> frozenset[int]:
        """Wait until some of the runs have changed; after ``timeout_s`` seconds, name them all."""
        waiting = asyncio.ensure_future(self._something.wait())
        try:
            await asyncio.wait({waiting}, timeout=timeout_s)
        finally:
            waiting.cancel()
        if self._error is not None:
            raise self._error
        if not self._something.is_set():
            self._feed.look()
            return self.run_ids
        changed, self._changed = frozenset(self._changed), set()
        self._something.clear()
        return changed


_feeds: dict[tuple[asyncio.AbstractEventLoop, StudyDatabase], ChangeFeed] = {}


def feed_of(study: StudyDatabase) -> ChangeFeed:
    """The feed of a study in the running loop; use it as a context manager."""
    key = (asyncio.get_running_loop(), study)
    feed = _feeds.get(key)
    if feed is None:
        feed = _feeds[key] = ChangeFeed(study)
    return feed


async def fill_indexes(studies: Iterable[StudyDatabase]) -> None:
    """Fill the indexes of some studies side by side, and beside the loop: it takes seconds."""
    await asyncio.gather(*(in_thread(partial(getattr, study, "index")) for study in studies))
