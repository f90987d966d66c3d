"""Taking turns at creating tasks in a study.

Whoever creates tasks takes the next ids, so that of two transactions that do it side by side one is undone,
and the longer one would always lose. So each waits for its turn, which ends with its transaction. A turn is
no right: who cannot have one in time goes ahead all the same, and the database decides. Nor is it kept while
user code awaits or idles: what was created before that is committed if nobody else was faster.

There are two lock files, as at a counter: the turn, and the place of who is next. Who has had a turn stands
in line again, and cannot snatch the next one from somebody who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motoko_core.session import Session

#: How long to wait for others, who may be creating many tasks, in seconds; after as long a server gives up on
#: a commit that does not end.
LIMIT_S = 120.0
#: Outside an event loop, a turn ends so many seconds after the last task was created, even without a commit.
_IDLE_S = 1.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.0005, 0.01
_PROCESS = uuid.uuid4().hex


class Turn:
    """A session's turn; its transaction manager tells it when the transaction is over."""

    def __init__(self, end: Callable[[Turn], None], session: Session) -> None:
        self.session = session
        self.thread = threading.get_ident()
        self.is_busy = True
        #: Whether it was used: a transaction that is over before then was an earlier one.
        self.has_begun = False
        self.used = time.monotonic()
        self.timer: threading.Timer | None = None
        self._end = end
        session.manager.registerSynch(self)

    def beforeCompletion(self, txn: object) -> None:
        self.is_busy = True  # a large commit takes longer than a script may idle

    def newTransaction(self, txn: object) -> None:
        pass

    def afterCompletion(self, txn: object) -> None:
        if self.has_begun:
            self._end(self)


class Turns:
    """The turns in one study; one object per process.

    :raises OSError: the lock files cannot be made or locked.
    """

    def __init__(self, directory: Path) -> None:
        self._turn = _FileLock(directory / "creating.lock")
        self._next = _FileLock(directory / "creating-next.lock")
        #: Held by whoever of this process has the turn, or stands in line for it.
        self._ours = threading.Lock()
        self._owner = 0
        self._holder: Turn | None = None
        self._guard = threading.RLock()

    @contextlib.contextmanager
    def held(self, session: Session, patience_s: float) -> Iterator[bool | None]:
        """Have the turn while tasks are created, and then until it ends as the module says.

        The context gets whether others may have created tasks since this process had its last turn; None if
        the turn could not be had in ``patience_s`` seconds.
        """
        others: bool | None = False
        with self._guard:
            turn = self._holder
            if turn is not None and turn.thread != threading.get_ident():
                turn = None
            if turn is not None and turn.session is not session:
                # That session is suspended, or it would not be this one that runs in the thread.
                turn = self._holder = Turn(self.end, session)
            if turn is not None:
                turn.is_busy = turn.has_begun = True
        if turn is None:
            others = self._line_up(session, patience_s)
            if self._holder is not None and others is not None:
                self._holder.has_begun = True
        try:
            yield others
        finally:
            if others is not None:
                self.end_soon(session)

    async def come(self, session: Session) -> bool | None:
        """Have the turn, as long as it takes at most, without holding up the event loop.

        The caller sees to its end with :meth:`end_soon`.

        :returns: whether others may have created tasks since this process had its last turn; None if the
            turn could not be had in :data:`LIMIT_S` seconds.
        """
        deadline = time.monotonic() + LIMIT_S
        while not self._ours.acquire(blocking=False):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_LONGEST_PAUSE_S)
        self._owner = threading.get_ident()
        try:
            for pause in _pauses(deadline):
                if self._step():
                    return self._begin(session)
                await asyncio.sleep(pause)
        except BaseException:
            self._leave()
            raise
        self._leave()
        return None

    def is_held_by(self, session: Session) -> bool:
        turn = self._holder
        return turn is not None and turn.session is session

    def end_soon(self, session: Session) -> None:
        """End a session's turn when user code awaits or idles, if its transaction does not end before."""
        with self._guard:
            turn = self._holder
            if turn is None or turn.session is not session:
                return
            turn.is_busy, turn.used = False, time.monotonic()
            try:
                asyncio.get_running_loop().call_soon(self.end, turn)
            except RuntimeError:
                if turn.timer is None:
                    self._set_timer(turn)

    def end(self, turn: Turn) -> None:
        with self._guard:
            if self._holder is turn:
                self._holder = None
                if turn.timer is not None:
                    turn.timer.cancel()
                self._turn.unlock()
                self._leave()

    # ------------------------------------------------------------------ standing in line

    def _line_up(self, session: Session, patience_s: float) -> bool | None:
        deadline = time.monotonic() + patience_s
        if self._ours.locked() and self._owner == threading.get_ident():
            return None  # it is this event loop that stands in line: waiting here would be for ever
        if not self._ours.acquire(timeout=patience_s):
            return None
        self._owner = threading.get_ident()
        try:
            for pause in _pauses(deadline):
                if self._step():
                    return self._begin(session)
                time.sleep(pause)
        except BaseException:
            self._leave()
            raise
        self._leave()
        return None

    def _step(self) -> bool:
        return self._next.try_lock() and self._turn.try_lock()

    def _begin(self, session: Session) -> bool:
        self._next.unlock()
        others = self._turn.sign()
        self._holder = Turn(self.end, session)
        return others

    def _leave(self) -> None:
        self._next.unlock()
        self._owner = 0
        self._ours.release()

    # ------------------------------------------------------------------ outside an event loop

    def _set_timer(self, turn: Turn) -> None:
        turn.timer = threading.Timer(_IDLE_S, self._time_out, [turn])
        turn.timer.daemon = True
        turn.timer.start()

    def _time_out(self, turn: Turn) -> None:
        with self._guard:
            if self._holder is not turn:
                return
            if turn.is_busy or time.monotonic() - turn.used < _IDLE_S:
                self._set_timer(turn)
            else:
                self.end(turn)


class _FileLock:
    """A lock between processes that goes with its process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._fd)
        if self.try_lock():  # an error where the file system knows no locks, as some of clusters' do
            self.unlock()

    def try_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def sign(self) -> bool:
        """Write who we are into a file that we have locked; answer whether somebody else had signed it."""
        signature = f"{os.getpid()} {_PROCESS}".encode()
        if os.pread(self._fd, 100, 0) == signature:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, signature, 0)
        return True


def _pauses(deadline: float) -> Iterator[float]:
    pause = _SHORTEST_PAUSE_S
    while True:
        yield pause
        if time.monotonic() > deadline:
            return
        pause = min(2 * pause, _LONGEST_PAUSE_S)


_known: weakref.WeakValueDictionary[Path, Turns] = weakref.WeakValueDictionary()
_known_guard = threading.Lock()


def turns_in(directory: Path) -> Turns | None:
    """The turns whose lock files are in a directory; None if files cannot be made or locked there."""
    with _known_guard:
        found = _known.get(directory)
        if found is None:
            try:
                found = _known[directory] = Turns(directory)
            except OSError:
                return None
        return found
