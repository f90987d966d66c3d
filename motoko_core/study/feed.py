"""The change feed: which runs changed, delivered into an event loop as it happens.

The server's announcements arrive in ZEO's network thread; they wake the loop, which lets the index take
them in and then everybody who waits. There is no polling; a slow one runs anyway, because an announcement
is a hint and the database is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSError

if TYPE_CHECKING:
    from motoko_core.interfaces import RunChange
    from motoko_core.study.database import StudyDatabase

logger = logging.getLogger("motoko.feed")

#: How long a waiter trusts the announcements before it looks for itself.
SAFETY_S = 30.0
_RECONNECT_S = 1.0


class ChangeFeed:
    """The changes of one study, in one event loop; opened by the first user, closed by the last."""

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._users = 0
        self._scheduled = False
        self._waiters: dict[int | None, set[asyncio.Future[None]]] = {}
        self._watchers: dict[int, set[Watcher]] = {}
        self._subscribers: list[Callable[[Sequence[RunChange]], None]] = []
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> ChangeFeed:
        self._users += 1
        if self._users == 1:
            index = self._index = self._study.index
            stop = index.on_announcement(self._announced)
            index.listeners.append(self._changed)

            def undo() -> None:
                stop()
                index.listeners.remove(self._changed)

            self._undo = undo
            try:
                index.refresh()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._users -= 1
        if self._users == 0:
            self._undo()
            _feeds.pop((self._loop, self._study), None)

    def subscribe(self, callback: Callable[[Sequence[RunChange]], None]) -> Callable[[], None]:
        """Call ``callback(changes)`` in the loop, before anybody who waits is woken.

        :returns: a function that ends this.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

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

    async def wait(self, run_id: int | None = None, timeout_s: float = SAFETY_S) -> None:
        """Return when this run (None: any run) has changed, or after ``timeout_s`` seconds."""
        future = self._loop.create_future()
        self._waiters.setdefault(run_id, set()).add(future)
        try:
            # Not wait_for: in Python 3.10 and 3.11 it can lose a cancellation.
            await asyncio.wait({future}, timeout=timeout_s)
            if not future.done():
                self._woken()
        finally:
            waiting = self._waiters.get(run_id, set())
            waiting.discard(future)
            if not waiting:
                self._waiters.pop(run_id, None)

    def _announced(self) -> None:
        # In the network thread. One wake-up serves all announcements until it runs.
        if not self._scheduled:
            self._scheduled = True
            self._call(self._woken)

    def _call(self, f: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits in it
            self._loop.call_soon_threadsafe(f, *args)

    def _woken(self) -> None:
        self._scheduled = False
        if self._users == 0:
            return
        try:
            self._index.refresh()
        except (ClientDisconnected, POSError) as error:
            logger.warning("%s cannot be read (%r); trying again", self._study.server.title, error)
            self._scheduled = True
            self._loop.call_later(_RECONNECT_S, self._woken)

    def _changed(self, changes: Sequence[RunChange]) -> None:
        if threading.get_ident() != self._thread:  # somebody selects in another thread
            self._call(self._changed, changes)
            return
        for callback in list(self._subscribers):
            callback(changes)
        self.wake(change.run_id for change in changes)

    def wake(self, run_ids: Iterable[int]) -> None:
        """Have those who wait for these runs look again."""
        ids = list(run_ids)
        for run_id in ids:
            for watcher in self._watchers.get(run_id, ()):
                watcher.note(run_id)
        for key in [None, *ids]:
            for future in self._waiters.get(key, ()):
                if not future.done():
                    future.set_result(None)


class Watcher:
    """Which of some runs have changed; made by :meth:`ChangeFeed.watching`."""

    def __init__(self, feed: ChangeFeed, run_ids: frozenset[int]) -> None:
        self.run_ids = run_ids
        self._feed = feed
        self._changed: set[int] = set()
        self._something = asyncio.Event()

    def note(self, run_id: int) -> None:
        self._changed.add(run_id)
        self._something.set()

    async def changed(self, timeout_s: float = SAFETY_S) -> frozenset[int]:
        """Wait until some of the runs have changed; after ``timeout_s`` seconds, name them all."""
        waiting = asyncio.ensure_future(self._something.wait())
        try:
            await asyncio.wait({waiting}, timeout=timeout_s)
        finally:
            waiting.cancel()
        if not self._something.is_set():
            self._feed._woken()
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
