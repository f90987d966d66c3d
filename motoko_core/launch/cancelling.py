"""Cancelling runs: those that wait, and those that a launcher has in hand.

A run that waits is cancelled by writing so. For one that is under way, its launcher is asked to: the tag of
the execution is written into the run, and the launcher, which hears of every change, stops the job. Where
no launcher serves the study, the job is stopped from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from motoko_core.entries import CANCEL, NOT_BEFORE, state_of, stored_failure, tag_of
from motoko_core.errors import AlreadyRunning
from motoko_core.launch import endings
from motoko_core.launch.generators import other_service, services
from motoko_core.launch.stopping import CANCELLED, stop
from motoko_core.locks import held, holder
from motoko_core.session import transact
from motoko_core.states import CREATED, is_active, is_failure
from motoko_core.study.runs import SessionRuns

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: How long a scheduler may take to say that jobs have ended.
_STOP_TIMEOUT_S = 60.0
#: Runs in one transaction.
_BATCH = 500


class Cancellation:
    """Runs of a workflow that are being cancelled.

    :param runs: ids of the runs.
    :param generator: another job generator than motoko.yaml names, for jobs that no launcher has in hand.
    """

    def __init__(
        self, workflow: Workflow, runs: Mapping[TaskManager, Iterable[int]], generator: str | None = None
    ) -> None:
        self._workflow = workflow
        self._generator = generator
        #: Runs whose end is not known yet.
        self.left = {manager: set(run_ids) for manager, run_ids in runs.items()}
        #: How many were cancelled, and how many had ended otherwise before they could be.
        self.cancelled = self.ended = 0
        #: Runs that are under way, but that no launcher of Motoko has started.
        self.strangers: dict[TaskManager, list[int]] = {}

    @property
    def is_done(self) -> bool:
        return not any(self.left.values())

    def ask(self) -> None:
        """Cancel the runs that wait; ask the launchers to stop the others."""
        for manager in self.left:
            self._ask(manager, self.left[manager])

    def look(self) -> None:
        """See which runs have come to their end; stop those that no launcher serves."""
        for manager, run_ids in self.left.items():
            if not run_ids:
                continue
            index = manager.database.index
            index.refresh()
            rows: dict[int, Mapping[str, Any]] = {run_id: index.rows.get(run_id) or {} for run_id in run_ids}
            # One whose launcher was stopped meanwhile waits again.
            again = {run_id for run_id, row in rows.items() if not is_under_way(row)}
            if again:
                self._ask(manager, again)
            if run_ids and holder(manager.launcher_lock) is None:
                self._stop(manager, sorted(run_ids))

    def _ask(self, manager: TaskManager, run_ids: Iterable[int]) -> None:
        ids = sorted(run_ids)
        for begin in range(0, len(ids), _BATCH):
            batch = ids[begin : begin + _BATCH]
            found = transact(f"cancel in {manager.study}", partial(_request, manager, batch))
            for run_id, answer in found.items():
                if answer is None:
                    continue  # the launcher has been asked
                self.left[manager].discard(run_id)
                if answer == CANCELLED:
                    self.cancelled += 1
                elif answer == _STRANGER:
                    self.strangers.setdefault(manager, []).append(run_id)
                else:
                    self.ended += 1

    def _stop(self, manager: TaskManager, run_ids: Sequence[int]) -> None:
        """Stop jobs that no launcher has in hand, as a launcher that is there for nothing else."""
        try:
            with held(manager.launcher_lock, f"a launcher of study {manager.study!r} is running", ""):
                service = services(self._workflow, [manager], self._generator)[manager]
                other = partial(other_service, self._workflow)
                asyncio.run(stop(manager, service, run_ids, other, timeout_s=_STOP_TIMEOUT_S))
        except AlreadyRunning:
            return  # one was started meanwhile, and finds out by itself
        self._ask(manager, run_ids)


def is_under_way(row: Mapping[str, Any]) -> bool:
    """Whether a launcher has a run in hand, or has still to write how it ended."""
    state = state_of(row)
    return (is_active(state) and state not in (CREATED, None)) or bool(tag_of(row))


_STRANGER = "STRANGER"
_ENDED = "ENDED"


def _request(manager: TaskManager, run_ids: Sequence[int]) -> dict[int, str | None]:
    """Cancel runs, or ask for it: run id -> CANCELLED, ENDED or STRANGER; None: a launcher has been asked."""
    found: dict[int, str | None] = dict.fromkeys(run_ids, _ENDED)  # those that were deleted
    for run_id, run in SessionRuns(manager.database).get(run_ids):
        entries, tag = run.entries, tag_of(run.entries)
        failure, state = stored_failure(entries), state_of(entries)
        waits = state in (CREATED, None)
        if waits:
            endings.cancel(run)
            entries.pop(NOT_BEFORE, None)
        if tag:
            # Also if it was reset, or its script has said how it ended: the job is still there.
            if entries.get(CANCEL) != tag:
                entries[CANCEL] = tag
            found[run_id] = None
        elif waits:
            found[run_id] = CANCELLED
        elif is_active(state):
            found[run_id] = _STRANGER
        else:
            is_cancelled = is_failure(state) and failure.get("reason") == CANCELLED
            found[run_id] = CANCELLED if is_cancelled else _ENDED
    return found
