"""The runs of one study that wait for a launcher."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from motoko_core.entries import NOT_BEFORE, tag_of
from motoko_core.states import CREATED

if TYPE_CHECKING:
    from motoko_core.interfaces import RunChange
    from motoko_core.task_manager import TaskManager

#: Seconds since 1970 that nobody lives to see; an ``int`` may be too large for a ``float``.
_FAR = 1e18


class WaitingRuns:
    """CREATED runs of a study that this machine may execute, oldest first, kept current from the feed.

    One that was reset waits until its earlier execution has ended.

    What one change costs does not grow with the number of runs that wait.

    :param machines: values of ``machine_name`` that are ours.
    :param wall_clock: seconds since 1970, which ``NOT_BEFORE`` of a run is compared with.
    """

    def __init__(
        self, manager: TaskManager, machines: frozenset[str], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._manager = manager
        self._machines = machines
        self._wall_clock = wall_clock
        self._ready: list[int] = []
        self._later: list[tuple[float, int]] = []

    def fill(self) -> None:
        """Look at all runs."""
        found = self._manager.database.index.candidates(states=frozenset({CREATED}))
        self._ready, self._later = [], []
        for run_id in sorted(found):
            self.offer(run_id)

    def changed(self, changes: Sequence[RunChange]) -> None:
        """Take in changes of the feed."""
        for change in changes:
            if change.after == CREATED:
                self.offer(change.run_id)

    def offer(self, run_id: int) -> None:
        """Look whether a run waits."""
        row = self._row(run_id)
        if not self._is_ours(row):
            return
        due = _due(row)
        if due > self._wall_clock():
            heapq.heappush(self._later, (due, run_id))
        else:
            heapq.heappush(self._ready, run_id)

    def due_in_s(self) -> float:
        """Seconds until the next run that must not start yet may start; infinite if there is none."""
        return max(0.0, self._later[0][0] - self._wall_clock()) if self._later else float("inf")

    def __bool__(self) -> bool:
        """Whether a run may be waiting."""
        return bool(self._ready)

    def take(self, limit: int, free: int | None = None, *, idle: bool = True) -> list[int]:
        """Take runs, in the order in which they wait; they are not offered again before they change.

        :param limit: so many at most.
        :param free: so many processors' worth; one that asks for more waits until nothing else runs, and so
            do those behind it. None: no limit.
        :param idle: whether nothing runs now.
        """
        taken: list[int] = []
        for run_id in self._in_turn(limit):
            if free is not None:
                free -= processors(self._row(run_id))
                if free < 0 and (taken or not idle):
                    break
            heapq.heappop(self._ready)
            taken.append(run_id)
        return taken

    def _in_turn(self, limit: int) -> Iterator[int]:
        while self._later and self._later[0][0] <= self._wall_clock():
            self.offer(heapq.heappop(self._later)[1])
        last = None
        for _ in range(limit):
            while self._ready and (self._ready[0] == last or not self._may_start(self._ready[0])):
                heapq.heappop(self._ready)  # it was entered twice, or has changed since
            if not self._ready:
                return
            last = self._ready[0]
            yield last

    def _row(self, run_id: int) -> Mapping[str, Any]:
        row = self._manager.database.index.rows.get(run_id)
        return {} if row is None else row

    def _is_ours(self, row: Mapping[str, Any]) -> bool:
        if row.get("state") != CREATED or row.get("machine_name") not in self._machines:
            return False
        return not tag_of(row)  # an earlier execution may still be at work

    def _may_start(self, run_id: int) -> bool:
        row = self._row(run_id)
        return self._is_ours(row) and _due(row) <= self._wall_clock()


def _due(row: Mapping[str, Any]) -> float:
    """``NOT_BEFORE`` of a run; nonsense counts as no time."""
    due = row.get(NOT_BEFORE)
    if not isinstance(due, (int, float)):
        return 0.0
    return float(min(max(0.0, due), _FAR))  # in this order, what is not a number becomes 0


def processors(row: Mapping[str, Any]) -> int:
    """``nproc`` of a run; 1 if it is nonsense, which is said when the run is launched."""
    number = row.get("nproc")
    return number if isinstance(number, int) and number > 0 else 1
