"""Reading a study as it was last committed, from its file: no server is needed, and none is kept busy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from motoko_core.session import Session, use

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

#: Runs after which what was read is given up again: the memory does not grow with the study.
_BATCH = 1000


@contextmanager
def snapshot(manager: TaskManager) -> Iterator[Any]:
    """BlackDynamite's view of a study; of one on another machine, through its server."""
    database = manager.database
    if not database.server.is_local:
        with use(Session("info")):
            yield manager.base
        return
    # Reading takes no lock; what a server is about to commit is left out.
    storage = FileStorage(str(database.server.data), read_only=True, create=False)
    db = ZODB.DB(storage, cache_size=10 * _BATCH)
    try:
        connection = db.open(transaction_manager=transaction.TransactionManager())
        yield database.base_on(connection)
        connection.close()
    finally:
        db.close()


def runs_of(base: Any) -> Iterable[tuple[int, Any]]:
    """(id, entries) of all runs, by id."""
    for number, (run_id, run) in enumerate(base._get_runs().entries.items()):
        yield run_id, run.entries
        if number % _BATCH == _BATCH - 1:
            base.connection.cacheGC()
