"""Connecting to databases, and creating a study's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import transaction
import ZODB
from ZEO.Exceptions import ClientDisconnected
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError
from ZODB.utils import p64, u64

from motoko_core.config import StudyConfig
from motoko_core.errors import DatabaseFault, StudyError
from motoko_core.session import Session, current_session, forget
from motoko_core.study import blackdynamite as bd
from motoko_core.study.client import StudyClient, StudyDB
from motoko_core.study.constraints import Names
from motoko_core.study.index import RunIndex
from motoko_core.study.layout import MOTOKO_SCHEMA, find_schema
from motoko_core.study.local_file import LocalFile
from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.probe import UP, state_of
from motoko_core.study.pulse import Pulse
from motoko_core.study.record_file import EarlierRecords, RecordFile
from motoko_core.study.server import Server, study_server
from motoko_core.study.starting import start_servers
from motoko_core.study.turns import LIMIT_S, Turns, turns_in

if TYPE_CHECKING:
    from ZODB.Connection import Connection

logger = logging.getLogger("motoko")

#: Objects that one connection keeps in memory, of some 1 kB each; a run and its job are about five of them.
#: Every firing under way has a connection of its own.
_OBJECTS_PER_CONNECTION = 10_000
#: What all connections to a study share, in a temporary file: what is not in memory any more comes from here
#: in 0.1 ms per run, and from the server in 1 ms. Each record in it takes 0.15 kB of memory besides.
_CLIENT_CACHE_BYTES = 32 * 2**20
_CONNECT_TIMEOUT_S = 15
#: How long who has the turn in one study waits for the turn in another that comes before it in the alphabet.
_OUT_OF_ORDER_S = 0.2


class Database:
    """A ZODB database behind a ZEO server; connects at the first use, starting a local server if need be.

    :param commit_order: databases with a higher number are finished later in a transaction.
    """

    def __init__(self, server: Server, *, commit_order: int = 0) -> None:
        self.server = server
        self.commit_order = commit_order
        #: Whether the server answers.
        self.pulse = Pulse(self)
        self._db: ZODB.DB | None = None
        self._lock = threading.RLock()

    @property
    def db(self) -> ZODB.DB:
        """The connected database.

        :raises StudyError: there is none, or its server cannot be reached.
        """
        with self._lock:
            if self._db is None:
                self._db = self._make_db()
            return self._db

    def _make_db(self) -> ZODB.DB:
        try:
            storage = self.connect(cache_size=_CLIENT_CACHE_BYTES, server_sync=False)
        except ClientDisconnected as error:
            raise StudyError(
                f"the server of {self.server.title} at {self.server.address} does not answer",
                hint=f"Its log is {self.server.directory / 'zeo.log'}.",
            ) from error
        return StudyDB(
            storage,
            title=self.server.title,
            place=self.server.data,
            cache_size=_OBJECTS_PER_CONNECTION,
            # Only the number above which ZODB warns; a firing that waits keeps its own.
            pool_size=10_000,
        )

    def open(self, manager: Any) -> Connection:
        """A connection on a transaction manager; closing it returns it to the pool, warm."""
        return self.db.open(transaction_manager=manager)

    @property
    def key(self) -> str:
        """Tells the databases of a workflow apart, wherever its directory is."""
        return self.server.title

    def connect(self, **options: Any) -> StudyClient:
        """Another client of the server, which is started if it is down, and may be started here.

        :raises StudyError: it cannot be reached.
        :raises ~ZEO.Exceptions.ClientDisconnected: it does not answer.
        """
        if not (self.is_connected and self.pulse.is_awaited):
            start_servers([self.server])
        elif state_of(self.server.address) != UP:  # who waits for it comes again
            self.pulse.lost()
            raise ClientDisconnected(f"{self.server.title} does not answer")
        return StudyClient(self.server, self.pulse, wait_timeout=_CONNECT_TIMEOUT_S, **options)

    @property
    def is_connected(self) -> bool:
        return self._db is not None

    def hang_up(self) -> None:
        """Break the connection for good: whoever waits for the server gets ``ClientDisconnected``."""
        if self._db is not None:
            self._db.storage.close()

    def ping(self) -> None:
        """Return when the server has answered, however long that takes; at once when not connected.

        :raises ~ZEO.Exceptions.ClientDisconnected: the connection was lost, and no new one was made in time.
        """
        ping = self._db.storage.ping if self._db is not None else None
        if ping is not None:
            ping()

    def close(self) -> None:
        """Disconnect; a later use connects again."""
        with self._lock:
            if self._db is not None:
                forget(self)
                self._db.close()
                self._db = None


class StudyDatabase(Database):
    """A BlackDynamite study's database.

    :param name: the task manager's name.
    :param host: ``host:`` of motoko.yaml, or None.
    """

    def __init__(self, name: str, config: StudyConfig, host: str | None) -> None:
        self.name = name
        self.config = config
        self.directory = config.directory
        self.host = host or f"zeo://{config.directory}"
        super().__init__(study_server(name, config.directory, host))
        self._schema: str | None = None
        self._index: RunIndex | None = None
        self._local: LocalFile | None = None
        self._turns: Turns | None = None

    @property
    def exists(self) -> bool:
        """Whether the study was created; a remote one is assumed to be."""
        return self.server.data.exists() or not self.server.is_local

    @property
    def base(self) -> bd.StudyBase:
        """BlackDynamite's view of the study, in the current session."""
        return self.base_on(current_session().connection(self))

    @property
    def schema(self) -> str:
        """The key of the study's tree in the database."""
        if self._schema is None:
            return str(self.base.schema)
        return self._schema

    def base_on(self, connection: Connection) -> bd.StudyBase:
        """BlackDynamite's view of the study, on a given connection."""
        base = getattr(connection, "motoko_base", None)
        if base is None:
            base = connection.motoko_base = bd.StudyBase(self, connection, self._find_schema(connection))
        return base

    def _find_schema(self, connection: Connection) -> str:
        if self._schema is None:
            schemas: Any = getattr(connection.root, "schemas", ())
            found = find_schema(schemas, self.config.name)
            if found is None:
                raise StudyError(
                    f"the database at {self.server.data} holds no study {self.config.name!r}, "
                    f"only {sorted(schemas)}",
                    where=str(self.config.path),
                    hint="`study:` in bd.yaml was changed, or `motoko create` is due.",
                )
            self._refuse_later_schema(schemas[found])
            self._schema = found
        return self._schema

    def _refuse_later_schema(self, data: Any) -> None:
        made_by = data.entries.get("motoko_schema", MOTOKO_SCHEMA)
        if made_by > MOTOKO_SCHEMA:
            raise DatabaseFault(
                f"{self.server.title} was made by a later version of Motoko: its schema is {made_by}, this "
                f"version reads schemas up to {MOTOKO_SCHEMA}",
                where=str(self.server.data),
                hint="Nothing was changed. Install a later Motoko: pip install --upgrade motoko",
            )

    # ------------------------------------------------------------------ creating tasks

    @contextmanager
    def creating(self) -> Iterator[bd.StudyBase]:
        """BlackDynamite's view of the study for creating tasks, when it is the current session's turn.

        :raises ConflictError: others have created tasks since the session's transaction began; or they are
            at it, and the session has no time to wait for them.
        """
        session = current_session()
        session.creates_in.add(self)
        try:
            with self._turn(session) as others:
                if others is None and session.patience_s is not None and self not in session.overdue_in:
                    raise ConflictError(f"another process is creating tasks in {self.server.title}")
                self._catch_up(session, others)
                yield self.base
        except ConflictError as error:
            session.note_conflict(error)
            raise

    def _turn(self, session: Session) -> AbstractContextManager[bool | None]:
        if self._turns is None:
            self._turns = turns_in(self.server.directory)
        if self._turns is None:
            return nullcontext(True)
        patience_s = LIMIT_S if session.patience_s is None else session.patience_s
        # Two could wait for each other, unless all wait in one order, which is that of session.in_order().
        if any(place.key > self.key and place.has_turn(session) for place in session.creates_in):
            patience_s = min(patience_s, _OUT_OF_ORDER_S)
        return self._turns.held(session, patience_s)

    def _catch_up(self, session: Session, others: bool | None) -> None:
        """See what others have created since the session's transaction began."""
        if others is not False:
            self.db.storage.catch_up()
        connection = session.connection(self)
        counters = self.base_on(connection).data.entries
        # Beside other sessions of this process it can go ahead: all that it asks for may be there already.
        if not connection.catch_up(counters, lambda oids: self.index.runs_of(oids)) and others is not False:
            raise ConflictError(f"tasks were created in {self.server.title} meanwhile", object=counters)

    def has_turn(self, session: Session) -> bool:
        """Whether it is the session's turn at creating tasks."""
        return self._turns is not None and self._turns.is_held_by(session)

    def take_turn(self, session: Session) -> None:
        """Wait for the turn at creating tasks, for a session that begins now."""
        with self._turn(session):
            self.db.storage.catch_up()

    async def come(self, session: Session) -> None:
        """As :meth:`take_turn`, but without holding up the event loop; :meth:`end_soon` is to follow."""
        if self._turns is None:
            return
        others = await self._turns.come(session)
        if others is None:
            session.overdue_in.add(self)
            logger.warning(
                "%s: another process has been at creating tasks for more than %.0f s, or was stopped at it; "
                "going ahead beside it",
                self.server.title,
                LIMIT_S,
            )
        if others is not False:
            self.db.storage.catch_up()

    def end_soon(self, session: Session) -> None:
        """End the session's turn when its code awaits or idles."""
        if self._turns is not None:
            self._turns.end_soon(session)

    # ------------------------------------------------------------------ the index

    @property
    def index(self) -> RunIndex:
        """The in-memory table of runs, filled at the first use."""
        with self._lock:
            if self._index is None:
                self._index = RunIndex(self)
            return self._index

    def latest_records(self) -> EarlierRecords:
        """The objects in the file that should be the database's, up to its end.

        :raises Unexpected: it is not as usual.
        :raises OSError: it cannot be read.
        """
        path = self.server.data
        if self._local is None or not self._local.is_at_its_place:
            self._local = LocalFile(path, RecordFile(path))
        return self._local.latest()

    def read_locally(self, end: bytes) -> None:
        """Read objects from the database's file from now on, as long as the connection lasts.

        :param end: the id after the last transaction that was found in it.
        :raises Unexpected: it is not the file of the server, which has other transactions in it.
        """
        storage, local = self.db.storage, self._local
        if p64(u64(storage.lastTransaction()) + 1) < end:
            storage.catch_up()  # the file is ahead of what the server has told
        told = p64(u64(storage.lastTransaction()) + 1)
        if local is None or told < end or not local.covers(told):
            raise Unexpected(f"{self.server.data} is not the file of the server")
        storage.file = local

    @property
    def names(self) -> Names:
        """What this study's constraints may mention."""
        runs: dict[str, type | None] = {**bd.RUN_TYPES, **bd.MOTOKO_TYPES, **self.config.run}
        for name in self.config.run_params:
            runs.setdefault(name.lower(), None)
        return Names(jobs={**bd.JOB_TYPES, **self.config.job}, runs=runs)

    def close(self) -> None:
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index = None
            self._schema = self._turns = self._local = None
            super().close()

    def create(self) -> None:
        """Write the database of an empty study. The server must be down, and no database there.

        :raises StudyError: there is one already.
        """
        data = self.server.data
        if data.exists():
            raise StudyError(f"{self.server.title} has a database already: {data}")
        self.server.write_config()
        # Written beside its place and moved there whole: a crash leaves nothing half-made.
        draft = data.with_name("new-" + data.name)
        _write(draft, lambda root: bd.create_schema(root, self.config.name, *self._types()))
        draft.replace(data)

    def _types(self) -> tuple[Mapping[str, type], Mapping[str, type]]:
        return self.config.job, self.config.run


def _write(path: Any, fill: Any) -> None:
    for leftover in (path, path.with_name(path.name + ".lock"), path.with_name(path.name + ".index")):
        leftover.unlink(missing_ok=True)
    manager = transaction.TransactionManager()
    db = ZODB.DB(FileStorage(str(path)))
    try:
        connection = db.open(transaction_manager=manager)
        fill(connection.root)
        manager.commit()
        connection.close()
    finally:
        db.close()
    for suffix in (".lock", ".index", ".tmp"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def create_empty(server: Server) -> None:
    """Write an empty database for a server that is down."""
    server.write_config()
    draft = server.data.with_name("new-" + server.data.name)
    _write(draft, lambda root: None)
    draft.replace(server.data)
