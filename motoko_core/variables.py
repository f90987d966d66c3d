"""Workflow variables: Python values that belong to a workflow and outlive its orchestrator."""

from __future__ import annotations

import io
import os
import pickle
import reprlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zc.lockfile
from BlackDynamite.zeoobject import ZEOObject
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.broken import Broken
from ZODB.POSException import ConflictError

from motoko_core.errors import MotokoError
from motoko_core.handed import Handed
from motoko_core.session import Session, current_session
from motoko_core.study.database import Database, create_empty
from motoko_core.study.server import Server

#: Variables are committed after the studies: what they mark as done has then really been done.
COMMIT_ORDER = 900
#: No attribute can have this name, so it cannot hide a variable that Motoko 0.1 has left in the root.
_TREE = "motoko.vars"
_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None))
_OWN = frozenset({"db_fname", "database"})
_MISSING: Any = object()
#: How many outdated copies of a session are watched for changes that would be lost.
_OUTDATED = 100


def variables_database(directory: Path) -> Database:
    """The database of the workflow in ``directory``, in ``.wf/wf.db``."""
    server = Server(title="the workflow variables", directory=directory / ".wf", data_name="wf.db")
    return Database(server, commit_order=COMMIT_ORDER)


def ensure_created(database: Database) -> None:
    """Write an empty database if there is none yet; several processes may try at once."""
    server = database.server
    if server.data.exists():
        return
    server.directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = zc.lockfile.LockFile(str(server.directory / "create.lock"))
    except zc.lockfile.LockError:
        from motoko_core.daemons import wait_until

        wait_until(server.data.exists, 10)
        return
    try:
        if not server.data.exists():
            create_empty(server)
    finally:
        lock.close()


class WorkflowVars:
    """A namespace of values stored in ``.wf/wf.db``: ``workflow.vars.best = 3``.

    Any value that pickle takes can be stored. Lists, dictionaries and objects may be changed in place; the
    change is found at the end of the transaction. What is set belongs to the transaction of the firing that
    sets it, and other processes may read and write at the same time.

    :param db_fname: path of the database file, ``<workflow>/.wf/wf.db``.
    """

    db_fname: str
    database: Database

    def __init__(self, db_fname: str | os.PathLike[str], database: Database | None = None) -> None:
        self.__dict__["db_fname"] = os.fspath(db_fname)
        path = Path(db_fname).absolute()
        if path.parts[-2:] != (".wf", "wf.db"):
            raise MotokoError(
                f"{self.db_fname!r} is not the place of workflow variables",
                hint="They are in <workflow's directory>/.wf/wf.db.",
            )
        self.__dict__["database"] = database or variables_database(path.parent.parent)

    @property
    def db(self) -> Any:
        """The ZODB database."""
        ensure_created(self.database)
        return self.database.db

    @property
    def conn(self) -> Any:
        """The current session's connection."""
        ensure_created(self.database)
        return current_session().connection(self.database)

    @property
    def root(self) -> Any:
        """The root mapping in the current session."""
        return self.conn.root()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, from another thread, when somebody has committed variables.

        :returns: a function that ends this.
        """
        adapter = self.db._mvcc_storage
        instance = adapter.new_instance()

        def announced(*_: object) -> None:
            callback()

        # Every storage instance is told of each commit; this one is never read, so it keeps no list.
        instance._invalidate = instance._invalidateCache = announced
        return instance.release  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        session = current_session()
        stored = _stored(self.root, name)
        if stored is _MISSING:
            raise self._unknown(name)
        if isinstance(stored, Broken):
            kind = type(stored)
            raise MotokoError(
                f"the workflow variable {name!r} is an object of the class {kind.__module__}.{kind.__name__}"
                ", which cannot be imported here",
                hint="Install its module, or put it beside orchestrator.py; or set the variable anew.",
            )
        if isinstance(stored, (*_IMMUTABLE, Persistent)):
            return stored
        return _watch(session, self).hand_out(name, stored)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or name in _OWN or hasattr(type(self), name):
            raise MotokoError(f"a workflow variable cannot be called {name!r}: the name is taken")
        ensure_created(self.database)
        _watch(current_session(), self).put(name, value)

    def __delattr__(self, name: str) -> None:
        if _stored(self.root, name) is _MISSING:
            raise self._unknown(name)
        _watch(current_session(), self).drop(name)

    def _unknown(self, name: str) -> AttributeError:
        return AttributeError(
            f"the workflow has no variable {name!r}; it has: {', '.join(dir(self)) or 'none'}"
        )

    def __dir__(self) -> list[str]:
        root = self.root
        own = (name for name in root if not name.startswith("motoko."))
        return sorted({*root.get(_TREE, {}), *own})


class _Given(NamedTuple):
    """A copy that user code has, its pickle when it was made, and what it was made from."""

    value: Any
    data: bytes
    stored: Any


class _Watch:
    """What a session has been given: changes in place are found by comparing pickles.

    User code gets copies, so that what it does to them never reaches another session's view; the copy
    stays the same object for as long as the session lasts and nobody else changes the variable.
    """

    def __init__(self, session: Session, variables: WorkflowVars) -> None:
        self._session = session
        self._variables = variables
        self._given: dict[str, _Given] = {}
        # Copies that somebody else's change has made outdated; user code may still hold and change them.
        self._outdated: deque[tuple[str, _Given]] = deque(maxlen=_OUTDATED)
        self._hooked: Any = None

    # A value that was read in one transaction may be changed in place in the next one of the same session,
    # so a watch is a synchronizer of the transaction manager.
    def newTransaction(self, transaction: Any) -> None:
        if self._hooked is not transaction:
            self._hooked = transaction
            transaction.addBeforeCommitHook(self._flush)
            transaction.addAfterAbortHook(self._forget)

    def beforeCompletion(self, transaction: Any) -> None:
        # The thread's own manager begins most of its transactions without a word to its synchronizers. This
        # may be an abort, too: an error waits until the transaction is really committed.
        if self._hooked is not transaction:
            transaction.addAfterAbortHook(self._forget)
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001 - raised by the transaction
                transaction.join(_Refusal(error))

    def afterCompletion(self, transaction: Any) -> None:
        pass

    def _forget(self) -> None:
        self._given.clear()
        self._outdated.clear()

    def hand_out(self, name: str, stored: Any) -> Any:
        given = self._given.get(name)
        if given is not None:
            if _is_same(given.stored, stored):
                self._given[name] = given._replace(stored=stored)
                return given.value
            if _dumps(name, given.value) != given.data:
                raise _conflict(name)
            self._outdated.append((name, given))
        value = pickle.loads(pickle.dumps(stored))
        self._given[name] = _Given(value, pickle.dumps(value), stored)
        return value

    def put(self, name: str, value: Any) -> None:
        if isinstance(value, (*_IMMUTABLE, Persistent)) and not _is_task(value):
            self._store(name, value)
            self._given.pop(name, None)
            return
        data = _dumps(name, value)
        self._given[name] = _Given(value, data, self._store(name, pickle.loads(data)))

    def drop(self, name: str) -> None:
        root = self._root()
        for holder in (root.get(_TREE, {}), root):
            if name in holder:
                del holder[name]
        self._given.pop(name, None)

    def _root(self) -> Any:
        # Of its own session: BlackDynamite commits the thread's transaction in the middle of another one.
        return self._session.connection(self._variables.database).root()

    def _store(self, name: str, value: Any) -> Any:
        root = self._root()
        if _TREE not in root:
            root[_TREE] = OOBTree()
        root[_TREE][name] = value
        return value

    def _flush(self) -> None:
        for name, given in self._outdated:
            if _dumps(name, given.value) != given.data:
                raise _conflict(name)
        for name, given in self._given.items():
            now = _dumps(name, given.value)
            if now == given.data:
                continue
            if not _is_same(given.stored, _stored(self._root(), name)):
                raise _conflict(name)
            self._given[name] = _Given(given.value, now, self._store(name, pickle.loads(now)))


class _Refusal:
    """A member of a transaction that lets it be aborted, but not committed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def tpc_begin(self, transaction: Any) -> None:
        raise self._error

    def abort(self, transaction: Any) -> None:
        pass

    tpc_abort = abort

    def sortKey(self) -> str:
        return ""


def _conflict(name: str) -> ConflictError:
    return ConflictError(f"the workflow variable {name!r} was changed by somebody else since it was read")


def _stored(root: Any, name: str) -> Any:
    """What the database holds; :data:`_MISSING` if there is no such variable."""
    found = root.get(_TREE, {}).get(name, _MISSING)
    return root.get(name, _MISSING) if found is _MISSING else found  # Motoko 0.1 wrote into the root


def _is_same(before: Any, now: Any) -> bool:
    if before is now:
        return True
    # Equal values have equal pickles only after a round trip, which decides which strings are one object.
    return now is not _MISSING and _round_trip(before) == _round_trip(now)


def _round_trip(value: Any) -> bytes:
    return pickle.dumps(pickle.loads(pickle.dumps(value)))


def _is_task(value: Any) -> bool:
    return isinstance(value, (Handed, ZEOObject))


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if _is_task(obj):
            raise TypeError(
                "a run or a job cannot be stored: store its reference, such as 'add.3', "
                "and get it again with workflow.get_runs"
            )
        return NotImplemented


def _dumps(name: str, value: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(value)
    except Exception as error:
        raise MotokoError(
            f"the workflow variable {name!r} cannot hold {reprlib.repr(value)}: {error}",
            hint="Store plain data: numbers, strings, lists, dictionaries.",
        ) from error
    return buffer.getvalue()


def _watch(session: Session, variables: WorkflowVars) -> _Watch:
    """The session's watch, hooked to its transactions."""
    watch: _Watch | None = session.kept.get(variables.database)
    if watch is None:
        watch = session.kept[variables.database] = _Watch(session, variables)
        session.manager.registerSynch(watch)
    watch.newTransaction(session.manager.get())
    return watch
