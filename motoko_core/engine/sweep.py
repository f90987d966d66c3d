"""Sweeps: run filters are asked about every run now and then, for they may look at what nobody announces.

All filters of a study go through its runs together, a portion in each look, so that everything else that
happens is looked at in between. What they found counts when the last portion is done.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from motoko_core.engine.actions import Reference
from motoko_core.engine.watch import Watch
from motoko_core.study.query import PORTION

#: All sweeps together may take this part of the time.
_SHARE = 0.05
#: So many answers of filters are a portion, which takes some 10 ms.
_ANSWERS = 1_000

Blaming = Callable[[Watch], AbstractContextManager[None]]


class _Sweep:
    """One pass of some watches over the runs of their study."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._found: dict[Watch, set[Reference]] = {watch: set() for watch in watches}
        candidates: set[int] = set()
        for watch in {watch.constraint: watch for watch in watches}.values():  # most have the same
            candidates.update(watch.query().ids())
        self._run_ids = array("q", sorted(candidates))
        self._position = 0
        # They are looked at by themselves when they change, and that is the newer answer.
        self._changed: set[int] = set()

    def note(self, run_ids: Iterable[int]) -> None:
        self._changed.update(run_ids)

    def step(self, watches: Sequence[Watch], blaming: Blaming) -> bool:
        """Go through one more portion; answer whether it was the last.

        :param watches: those that are registered now.
        """
        watches = [watch for watch in watches if watch in self._found]
        end = self._position + max(1, min(PORTION, _ANSWERS // max(1, len(watches))))
        run_ids = self._run_ids[self._position : end]
        if watches:
            tasks = list(watches[0].look_up(run_ids))
            for watch in watches:
                with blaming(watch):
                    self._found[watch] |= watch.among(tasks)
        self._position = end
        if end < len(self._run_ids):
            return False
        for watch in watches:
            watch.end_sweep(self._found[watch], self._changed)
        return True


class Sweeps:
    """The sweeps of a workflow: one at a time in each study.

    :param clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float], blaming: Blaming) -> None:
        self._clock = clock
        self._blaming = blaming
        self._under_way: dict[str, _Sweep] = {}
        self._next = 0.0
        #: Whether a filter was not asked about all runs even once.
        self.is_urgent = False

    @property
    def due(self) -> float | None:
        """When the next portion is due; None if no sweep is under way."""
        if self.is_urgent:
            return float("-inf")
        return self._next if self._under_way else None

    def start_again(self, study: str) -> None:
        """Any run of a study may have changed since the sweep that is under way began."""
        self._under_way.pop(study, None)

    def note(self, study: str, run_ids: Iterable[int]) -> None:
        """These runs are looked at by themselves."""
        if study in self._under_way:
            self._under_way[study].note(run_ids)

    def go_on(self, watches: Iterable[Watch], now: float, *, tick: bool) -> None:
        """Go through a portion of each study where one is due; a tick begins a new sweep.

        :param watches: those of all run filters that are registered now.
        """
        by_study: dict[str, list[Watch]] = {}
        for watch in watches:
            by_study.setdefault(watch.manager.study, []).append(watch)
        self._under_way = {study: sweep for study, sweep in self._under_way.items() if study in by_study}
        is_due, has_swept = now >= self._next, False
        began = self._clock()
        for study, mine in by_study.items():
            urgent = not all(watch.complete for watch in mine)
            if study not in self._under_way and (urgent or (tick and is_due)):
                self._under_way[study] = _Sweep(mine)
            if study in self._under_way and (urgent or is_due):
                has_swept = True
                if self._under_way[study].step(mine, self._blaming):
                    self._under_way.pop(study, None)
        if has_swept:
            ended = self._clock()
            self._next = ended + (ended - began) * (1 / _SHARE - 1)
        self.is_urgent = not all(watch.complete for mine in by_study.values() for watch in mine)
