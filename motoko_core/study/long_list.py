"""Many tasks as numbers: the objects are looked up when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from ZODB.utils import u64

from motoko_core.errors import TaskError
from motoko_core.handed import stale
from motoko_core.session import current_session
from motoko_core.study.values import prefetch

if TYPE_CHECKING:
    from motoko_core.study.database import StudyDatabase

_PREFETCH = 500
Pair = tuple[Any, Any]


class LongList(Sequence[Pair]):
    """(run, job) pairs of one study, in some thirty bytes each; they belong to the current session."""

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        self._session = current_session()
        self.run_ids = array("q")
        self._job_ids = array("q")
        # What had an id in a transaction that was undone is not what has it in the next one.
        self._oids = array("Q")

    def append(self, run: Any, job: Any) -> None:
        """Add a task, which may be new in the session's transaction."""
        if run._p_oid is None:
            self._session.connection(self._study).add(run)
        self.run_ids.append(run.entries["id"])
        self._job_ids.append(job.entries["id"])
        self._oids.append(u64(run._p_oid))

    def __len__(self) -> int:
        return len(self.run_ids)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self._load(i) for i in range(len(self))[index]]
        return self._load(range(len(self))[index])

    def __iter__(self) -> Iterator[Pair]:
        for begin in range(0, len(self), _PREFETCH):
            pairs = self[begin : begin + _PREFETCH]
            connection = self._session.connection(self._study)
            for column in zip(*pairs, strict=True):
                prefetch(connection, column, "entries")
            yield from pairs

    def _load(self, index: int) -> Pair:
        reference = f"{self._study.name}.{self.run_ids[index]}"
        session = current_session()
        if session is not self._session:
            raise stale(reference)
        base = self._study.base
        run = base._get_runs().entries.get(self.run_ids[index])
        if run is None or u64(run._p_oid) != self._oids[index]:
            raise TaskError(
                f"{reference} is not the task that was created: that was undone, or deleted",
                hint="Create it again: createTask gives what is there, and makes what is not.",
            )
        job = base._get_jobs().entries.get(self._job_ids[index])
        return session.hand_out(run, reference), session.hand_out(job, f"the job of {reference}")
