"""Reading a study through ZODB, with BlackDynamite's own classes: slower, and right in every case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from motoko_core.errors import MotokoError
from motoko_core.study.record import Record
from motoko_core.study.values import is_value, prefetch

if TYPE_CHECKING:
    from motoko_core.study_config import StudyConfig

#: Objects that are asked of a server together, and after which they are given up again: the memory does not
#: grow with the study.
_BATCH = 500


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
    from ZODB.FileStorage.format import CorruptedError
    from ZODB.POSException import POSError, ReadOnlyError

    from motoko_core.study.client import StudyDB
    from motoko_core.study.database import StudyDatabase
    from motoko_core.study.datafile import damaged, open_read_only

    database = StudyDatabase(name, config, host)
    with ExitStack() as stack:
        manager = transaction.TransactionManager()
        try:
            if database.server.is_local:
                # Reading takes no lock; what a server is about to commit is left out.
                title, data = database.server.title, database.server.data
                storage = open_read_only(title, data)
                stack.callback(storage.close)  # StudyDB closes it too, if it comes about
                db = StudyDB(storage, title=title, place=data, cache_size=10 * _BATCH)
                stack.callback(db.close)
                connection = db.open(transaction_manager=manager, before=before)
            else:
                stack.callback(database.close)
                connection = database.open(manager)
            stack.callback(connection.close)
            yield PlainSnapshot(database.base_on(connection))
        except (CorruptedError, POSError) as error:
            if isinstance(error, MotokoError) or not database.server.is_local:
                raise
            # ZODB wants to write what every database begins with.
            reason = "no transaction is whole" if isinstance(error, ReadOnlyError) else str(error)
            raise damaged(database.server.title, database.server.data, reason) from error
