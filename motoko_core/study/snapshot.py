"""Reading a study as it was last committed, from its file: no server is needed, and none is kept busy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from motoko_core.errors import StudyError
from motoko_core.study.layout import find_schema
from motoko_core.study.record_file import ROOT, RecordFile, Reference, Unexpected
from motoko_core.study.server import study_server
from motoko_core.study.values import is_value

if TYPE_CHECKING:
    from motoko_core.study_config import StudyConfig

logger = logging.getLogger("motoko")

#: Objects that are asked of a server together, and after which they are given up again: the memory does not
#: grow with the study.
_BATCH = 500


@attrs.frozen
class Record:
    """A run or a job as it is stored.

    :param entries: its entries.
    :param attributes: what scripts have set on it, by names in lower case.
    """

    id: Any
    entries: Mapping[str, Any]
    attributes: Mapping[str, Any]
    _quantities: Callable[[], Mapping[str, Any]] = attrs.field(repr=False, eq=False)

    @property
    def quantities(self) -> Mapping[str, Any]:
        """Name of a quantity -> the file that its values are in; read when it is asked for."""
        return self._quantities()

    @property
    def values(self) -> dict[str, Any]:
        """All values, as constraints see them."""
        return {**self.attributes, **self.entries}


class Snapshot(Protocol):
    """All runs and jobs of a study as they were at one moment."""

    def runs(self) -> Iterator[Record]:
        """All runs, by id."""

    def job(self, job_id: Any) -> Record | None:
        """A job; None if there is none."""


@contextmanager
def snapshot(name: str, config: StudyConfig, host: str | None) -> Iterator[Snapshot]:
    """A study at this moment; one on another machine is asked of its server.

    :param name: the task manager's name.
    :param host: ``host:`` of motoko.yaml, or None.
    :raises ~motoko_core.errors.StudyError: its database is damaged or unreachable.
    """
    server = study_server(name, config.directory, host)
    with ExitStack() as stack:

        def plain(before: bytes | None = None) -> PlainSnapshot:
            return stack.enter_context(plain_snapshot(name, config, host, before=before))

        if not server.is_local:
            found: Snapshot = plain()
        else:
            try:
                file = RecordFile(server.data)
                stack.callback(file.close)
                found = FileSnapshot(file, config.name, plain)
            except Unexpected as error:
                logger.debug("%s is read with ZODB: %s", server.data, error)
                found = plain()
            except OSError as error:
                raise StudyError(f"cannot read {server.data}: {error.strerror or error}") from error
        yield found


# ---------------------------------------------------------------------- the fast way


class FileSnapshot:
    """A study's file, read by :class:`~motoko_core.study.record_file.RecordFile`.

    :param study: ``study:`` of bd.yaml.
    :param plain: reads the same moment with ZODB, for what is not as usual; takes the first transaction id
        that it must not see.
    :raises Unexpected: there is no such study in it, or nothing is where it should be.
    """

    def __init__(self, file: RecordFile, study: str, plain: Callable[[bytes], PlainSnapshot]) -> None:
        self._file = file
        self._open_plain = plain
        schemas = dict(file.items(self._entries(self._state(ROOT)["data"]["schemas"])))
        schema = find_schema(schemas, study)
        if schema is None:
            raise Unexpected(f"no study {study!r} in it")
        tree = dict(file.items(self._entries(schemas[schema])))
        self._runs, self._jobs = self._entries(tree["runs"]), self._entries(tree["jobs"])

    def runs(self) -> Iterator[Record]:
        last = None
        try:
            for run_id, reference in self._file.items(self._runs):
                yield self._record(run_id, reference, self._run_quantities)
                last = run_id
        except Unexpected as error:
            logger.debug("from the run after %s on, ZODB reads: %s", last, error)
            yield from self._plain.runs(after=last)

    def job(self, job_id: Any) -> Record | None:
        try:
            reference = self._places_of_jobs.get(job_id)
            return None if reference is None else self._record(job_id, reference, lambda *_: {})
        except Unexpected as error:
            logger.debug("ZODB reads the job %s: %s", job_id, error)
            return self._plain.job(job_id)

    def _record(
        self, record_id: Any, reference: Reference, quantities: Callable[[Any, Any], Mapping[str, Any]]
    ) -> Record:
        state, links = self._file.state(reference)
        try:
            entries = state["entries"]
            if type(entries) is Reference:
                entries = dict(self._file.items(entries))
            attributes = {name.lower(): value for name, value in state.items() if is_value(name)}
            own = sum(type(value) is Reference for name, value in state.items() if not is_value(name))
        except (TypeError, KeyError, AttributeError) as error:
            raise Unexpected(f"the record {record_id}: {error!r}") from error
        if links != own or any(type(value) is Reference for value in entries.values()):
            raise Unexpected(f"a value of {record_id} is an object of its own")
        stored = state.get("quantities")
        return Record(record_id, entries, attributes, lambda: quantities(record_id, stored))

    def _run_quantities(self, run_id: Any, stored: Any) -> Mapping[str, Any]:
        try:
            return dict(self._file.items(stored))
        except Unexpected:
            run = self._plain.run(run_id)
            return {} if run is None else run.quantities

    def _state(self, reference: Reference) -> Any:
        return self._file.state(reference)[0]

    def _entries(self, tree: Any) -> Reference:
        """Where the entries are, of one of BlackDynamite's own trees."""
        if type(tree) is not Reference:
            raise Unexpected(f"{tree!r} instead of a tree")
        entries = self._state(tree).get("entries")
        if type(entries) is not Reference:
            raise Unexpected(f"{entries!r} instead of the entries of a tree")
        return entries

    @cached_property
    def _places_of_jobs(self) -> dict[Any, Reference]:
        return dict(self._file.items(self._jobs))

    @cached_property
    def _plain(self) -> PlainSnapshot:
        return self._open_plain((int.from_bytes(self._file.last, "big") + 1).to_bytes(8, "big"))


# ---------------------------------------------------------------------- the plain way


class PlainSnapshot:
    """A study read through ZODB, with BlackDynamite's own classes."""

    def __init__(self, base: Any) -> None:
        self._connection = base.connection
        self._runs, self._jobs = base._get_runs().entries, base._get_jobs().entries

    def runs(self, after: Any = None) -> Iterator[Record]:
        """All runs, or those with an id beyond one, by id."""
        ids = list(self._runs.keys(after, None, after is not None))
        for begin in range(0, len(ids), _BATCH):
            runs = [self._runs[run_id] for run_id in ids[begin : begin + _BATCH]]
            prefetch(self._connection, runs, "entries")
            for run_id, run in zip(ids[begin:], runs, strict=False):
                yield record_of(run_id, run)
            self._connection.cacheGC()

    def run(self, run_id: Any) -> Record | None:
        run = self._runs.get(run_id)
        return None if run is None else record_of(run_id, run)

    def job(self, job_id: Any) -> Record | None:
        job = self._jobs.get(job_id)
        return None if job is None else record_of(job_id, job)


def prefetch(connection: Any, objects: Sequence[Any], *parts: str) -> None:
    """Have a server send runs or jobs, and some of the objects that they consist of, together."""
    _fetch(connection, objects)
    for part in parts:
        for obj in objects:
            obj._p_activate()  # reading __dict__ does not load a ghost
        _fetch(connection, [obj.__dict__.get(part) for obj in objects])


def _fetch(connection: Any, objects: Iterable[Any]) -> None:
    ghosts = [obj for obj in objects if getattr(obj, "_p_changed", 0) is None]
    if len(ghosts) > 1:
        connection.prefetch(ghosts)


def record_of(record_id: Any, obj: Any) -> Record:
    """The record of one of BlackDynamite's objects."""
    obj._p_activate()  # reading __dict__ does not load a ghost
    attributes = {name.lower(): value for name, value in obj.__dict__.items() if is_value(name)}

    def quantities() -> dict[str, Any]:
        obj._p_activate()
        return dict(obj.__dict__.get("quantities", ()))

    return Record(record_id, dict(obj.entries.items()), attributes, quantities)


@contextmanager
def plain_snapshot(
    name: str, config: StudyConfig, host: str | None, *, before: bytes | None = None
) -> Iterator[PlainSnapshot]:
    """A study, read through ZODB.

    :param before: the first transaction id that must not be seen, of a study on this machine.
    :raises ~motoko_core.errors.StudyError: as :func:`snapshot` does.
    """
    # Importing ZODB and BlackDynamite takes longer than reading a thousand runs without them.
    import transaction
    import ZODB
    from ZODB.FileStorage import FileStorage
    from ZODB.FileStorage.format import CorruptedError
    from ZODB.POSException import POSError

    from motoko_core.study.database import StudyDatabase

    database = StudyDatabase(name, config, host)
    with ExitStack() as stack:
        manager = transaction.TransactionManager()
        try:
            if database.server.is_local:
                # Reading takes no lock; what a server is about to commit is left out.
                storage = FileStorage(str(database.server.data), read_only=True, create=False)
                db = ZODB.DB(storage, cache_size=10 * _BATCH)
                stack.callback(db.close)
                connection = db.open(transaction_manager=manager, before=before)
            else:
                stack.callback(database.close)
                connection = database.open(manager)
            stack.callback(connection.close)
            yield PlainSnapshot(database.base_on(connection))
        except (CorruptedError, POSError) as error:
            if not database.server.is_local:
                raise
            raise StudyError(
                f"the database {database.server.data} is damaged: {error}",
                hint="What can be read of it: `python -m ZODB.fsrecover bd.zeo recovered.zeo` in its "
                "directory, with the server stopped.",
            ) from error
