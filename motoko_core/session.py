"""Sessions: one transaction across all studies and the workflow variables, per piece of user code.

A context variable holds the current session. ``main`` and every firing get one of their own, so that
what one of them does is isolated from the code beside it, and is committed together or not at all. Code
outside the engine (a script, a shell, a task) works in the thread's default session, on the thread's own
``transaction.manager``, where ``transaction.commit()`` does what it always does.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import transaction
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from motoko_core.errors import ConflictRetriesExceeded, StaleObjectError
from motoko_core.handed import Handed, HandedKnown, Seen
from motoko_core.journal import Journal, OutcomeUnknown, watch_finishing

if TYPE_CHECKING:
    from ZODB.Connection import Connection

T = TypeVar("T")

#: How often a piece of work is called again after conflicts before it is given up.
MAX_ATTEMPTS = 30
#: After so many objects handed out, a session forgets those that nobody has any more.
_HANDED = 1000
#: And after lost connections, each of which a server has some seconds to mend.
_CONNECTIONS = 3


class Openable(Protocol):
    """A database that a session can open a connection to."""

    @property
    def commit_order(self) -> int: ...

    @property
    def key(self) -> str: ...

    def open(self, manager: Any) -> Connection: ...


class CreatesTasks(Protocol):
    """A study in which sessions take turns at creating tasks."""

    @property
    def key(self) -> str: ...

    def has_turn(self, session: Session) -> bool: ...

    def take_turn(self, session: Session) -> None: ...

    async def come(self, session: Session) -> None: ...

    def end_soon(self, session: Session) -> None: ...


class Session:
    """One transaction at a time, over the databases that were touched.

    :param title: what runs in it, for messages.
    """

    #: Whether committing and retrying is the engine's business, not the user code's.
    managed = False
    #: How long creating a task may wait for other processes that create tasks; as long as they need.
    patience_s: float | None = None

    def __init__(self, title: str) -> None:
        self.title = title
        self.manager = transaction.TransactionManager(explicit=True)
        self._connections: dict[Openable, Connection] = {}
        # Weak, because `main` can run for weeks and select every second.
        self._handed: list[weakref.ref[Handed]] = []
        self._sweep_at = _HANDED
        #: What is kept over the session's transactions.
        self.kept: dict[Any, Any] = {}
        #: What user code in this session waits for at the moment, in words.
        self.waiting: list[str] = []
        #: Makes commits over several databases survive ``kill -9``; set it before anything is opened.
        self.journal: Journal | None = None
        #: The studies in which the session has created tasks, or tried to.
        self.creates_in: set[CreatesTasks] = set()
        #: Those of them for which it has waited as long as one waits for a turn: it goes ahead without.
        self.overdue_in: set[CreatesTasks] = set()
        #: Called when a transaction is over, committed (True) or not; not in the default session.
        self.after: list[Callable[[bool], None]] = []
        self._active = False

    def connection(self, database: Openable) -> Connection:
        """This session's connection to ``database``."""
        if not self._active:
            raise StaleObjectError(
                f"{self.title}: its session is over",
                hint="Await in the callback what you start in it; or use @event on a function of its own.",
            )
        connection = self._connections.get(database)
        if connection is None:
            connection = self._connections[database] = self._open(database)
        return connection

    def _open(self, database: Openable) -> Connection:
        connection = database.open(self.manager)
        if self.journal is not None:
            watch_finishing(connection)
        # The transaction finishes its databases in the order of their keys, and kill -9 can fall between
        # two of them: what marks a piece of work as done has to come last, then it is never lost.
        # Among equals it is ZODB's order, by address: if two processes locked the same two databases in
        # different orders, each would wait for the other.
        natural = type(connection).sortKey
        connection.sortKey = lambda: f"{database.commit_order:03d}:{natural(connection)}"
        return connection

    def hand_out(self, value: Any, reference: str, known: Callable[[str], Any] | None = None) -> Any:
        """Wrap an object for user code; it refuses to work when the session is closed.

        :param known: gives some of its values without reading it, as long as the object would give the same;
            KeyError otherwise.
        """
        handed = Handed(value, reference) if known is None else HandedKnown(value, reference, known)
        self._handed.append(weakref.ref(handed))
        if len(self._handed) > self._sweep_at:
            self._handed = [weak for weak in self._handed if weak() is not None]
            self._sweep_at = 2 * len(self._handed) + _HANDED
        return handed

    async def ready(self) -> None:
        """Return when the databases answer: what is synchronous may be begun."""

    def begin(self) -> None:
        self.manager.begin()
        self._active = True

    def commit(self) -> None:
        """Commit; a conflict aborts and is raised.

        :raises OutcomeUnknown: the connection to a server was lost at the end of the commit. The session is
            aborted, and whether the commit has happened can be asked when the servers answer again.
        """
        guard = None
        try:
            if self.journal is not None:
                opened = {database.key: connection for database, connection in self._connections.items()}
                guard = self.journal.guard(self.manager.get(), opened)
            self.manager.commit()
        except BaseException as error:
            self.abort()
            if self.journal and guard and guard.is_open and isinstance(error, ClientDisconnected):
                # One database alone cannot tell.
                raise OutcomeUnknown(
                    str(error), partial(self.journal.has_happened, guard.identity)
                ) from error
            raise
        self._active = False
        self._finish(True)

    def abort(self) -> None:
        if self._active:
            self.manager.abort()
            self._active = False
        self._finish(False)

    def checkpoint(self) -> None:
        """Commit what was done so far, and go on in a new transaction that sees what others committed."""
        self.commit()
        self.begin()

    def note_conflict(self, error: Exception) -> None:
        """What was done so far cannot be committed any more."""

    def commit_after(self, work: Callable[[], T]) -> T:
        """Do something and commit. A conflict is raised: whoever runs this session calls everything again."""
        result = work()
        self.checkpoint()
        return result

    def _finish(self, committed: bool) -> None:
        callbacks, self.after = self.after, []
        for callback in callbacks:
            callback(committed)

    def close(self) -> None:
        """Abort what is not committed, and give the connections back."""
        self.abort()
        for weak in self._handed:
            handed = weak()
            if handed is not None:
                handed._self_end()
        self._handed.clear()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class DefaultSession(Session):
    """The session of a thread outside the engine, on ``transaction.manager``."""

    def __init__(self) -> None:
        super().__init__("the default session")
        self.manager = transaction.manager
        self._active = True  # there is always a transaction to work in

    def connection(self, database: Openable) -> Connection:
        connection = super().connection(database)
        if connection._needs_to_join:
            # Nothing is at stake in this database: see what others have committed meanwhile.
            connection.newTransaction(None, False)
        return connection

    def hand_out(self, value: Any, reference: str, known: Callable[[str], Any] | None = None) -> Any:
        return value if known is None else Seen(value, reference, known)

    def begin(self) -> None:
        self.manager.begin()

    def commit(self) -> None:
        self.manager.commit()

    def abort(self) -> None:
        self.manager.abort()

    def checkpoint(self) -> None:
        self.manager.commit()

    def commit_after(self, work: Callable[[], T]) -> T:
        """Commit what came before, do something and commit; again after a conflict or a lost connection.

        Whether such a commit has happened or not, doing it again must give the same.
        """
        try:
            self.checkpoint()
        except BaseException:
            self.abort()
            raise
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                result = work()
                self.checkpoint()
            except ClientDisconnected:
                self.abort()
                if attempt >= _CONNECTIONS:
                    raise
            except ConflictError as error:
                self.abort()
                if attempt == MAX_ATTEMPTS:
                    raise give_up("the default session", error) from error
                time.sleep(backoff_s(attempt))
            else:
                return result
        raise AssertionError("unreachable")


_current: ContextVar[Session | None] = ContextVar("motoko_session", default=None)
_threads = threading.local()


def current_session() -> Session:
    """The session of the running code; the thread's default session outside the engine."""
    session = _current.get()
    if session is not None:
        return session
    default: DefaultSession | None = getattr(_threads, "session", None)
    if default is None:
        default = _threads.session = DefaultSession()
    return default


def forget(database: Openable) -> None:
    """Close the default session's connection to a database that is about to be closed."""
    default: DefaultSession | None = getattr(_threads, "session", None)
    connection = default._connections.pop(database, None) if default else None
    if connection is not None:
        if not connection._needs_to_join:
            transaction.abort()
        connection.close()


@contextlib.contextmanager
def use(session: Session) -> Iterator[Session]:
    """Make ``session`` the current one; begin a transaction, close the session at the end."""
    token = _current.set(session)
    try:
        session.begin()
        yield session
    finally:
        session.close()
        _current.reset(token)


def backoff_s(attempt: int) -> float:
    """How long to wait before attempt number ``attempt`` + 1: random, growing, at most 0.2 s."""
    return random.uniform(0, min(0.2, 0.002 * 2**attempt))


def give_up(title: str, error: Exception) -> ConflictRetriesExceeded:
    return ConflictRetriesExceeded(
        f"{title}: {MAX_ATTEMPTS} attempts ended in conflicts with other transactions ({error})",
        hint="Something keeps writing the same objects; what this piece of work did is undone.",
    )


def transact(title: str, work: Callable[[], T]) -> T:
    """Call ``work`` in a session of its own and commit; call it again after a conflict.

    :raises ConflictRetriesExceeded: after :data:`MAX_ATTEMPTS` conflicts.
    """
    places: set[CreatesTasks] = set()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        session = Session(title)
        for place in in_order(places):
            place.take_turn(session)
        with use(session):
            try:
                result = work()
                session.commit()
            except ConflictError as error:
                if attempt == MAX_ATTEMPTS:
                    raise give_up(title, error) from error
                places = session.creates_in
            else:
                return result
        time.sleep(backoff_s(attempt))
    raise AssertionError("unreachable")


def in_order(places: Iterable[CreatesTasks]) -> list[CreatesTasks]:
    """Studies in the order in which every process takes its turns, so that nobody waits in a circle."""
    return sorted(places, key=lambda place: place.key)


@contextlib.asynccontextmanager
async def turns(places: Iterable[CreatesTasks], session: Session) -> AsyncIterator[None]:
    """Wait for turns at creating tasks, for a session that begins its work in the context at once."""
    coming = in_order(places)
    try:
        for place in coming:
            await place.come(session)
    finally:
        for place in coming:
            place.end_soon(session)
    yield
