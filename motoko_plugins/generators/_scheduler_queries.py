"""The commands that tell of a scheduler's jobs, and end them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from motoko_plugins.generators._commands import Outcome, execute
from motoko_plugins.generators._scheduler import Phase, Scheduler, Seen, Settings

log = logging.getLogger(__name__)

#: Jobs in one question: a command takes so many words, and no word of more than 128 KiB.
_AT_ONCE = 1000


class Queries:
    """Asks a scheduler; one command for all jobs."""

    def __init__(self, scheduler: Scheduler, settings: Settings, environment: Mapping[str, str]) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._environment = environment
        #: Whether there is an accounting to ask, as far as is known.
        self.has_history = True

    async def queue(self) -> list[Seen]:
        """Ask for all jobs in the queue.

        :raises ValueError: there is no answer; says why.
        """
        outcome = await self._execute(self._scheduler.status_command())
        if not self._is_answer(outcome):
            raise ValueError(str(outcome))
        return self._scheduler.parse_status(outcome.output)

    async def history(self, job_ids: Collection[str]) -> list[Seen]:
        """Ask the accounting of jobs that the queue has forgotten; answer those that have ended."""
        ids = sorted(job_ids)
        seen: list[Seen] = []
        for begin in range(0, len(ids), _AT_ONCE):
            answer = await self._history(ids[begin : begin + _AT_ONCE])
            if answer is None:
                break  # the next question would hang, too
            seen += answer
        # It may lag behind the queue, which does not know them any more: only ends count.
        return [entry for entry in seen if entry.phase is Phase.OVER]

    async def _history(self, job_ids: Sequence[str]) -> list[Seen] | None:
        """As :meth:`history`, for so many as one command can have; None if it hung."""
        command = self._scheduler.history_command(job_ids) if self.has_history else None
        if command is None:
            return []
        outcome = await self._execute(command)
        is_missing = not outcome.has_started and not outcome.is_short
        if is_missing or (outcome.code != 0 and "disabled" in outcome.errors):
            log.info("there is no accounting to ask: %s", outcome)
            self.has_history = False
        if outcome.code is None and outcome.has_started:
            return None
        try:
            return self._scheduler.parse_history(outcome.output) if self._is_answer(outcome) else []
        except ValueError:
            log.warning("the accounting gives no sense: %s", outcome)
            return []

    async def cancel(self, job_ids: Iterable[str]) -> None:
        """Have the scheduler end jobs, in its own time."""
        if ids := sorted(set(job_ids)):
            outcome = await self._execute(self._scheduler.cancel_command(ids))
            if outcome.code != 0:  # it is done again after a while
                log.warning("%s", outcome)

    async def cancel_lost(self, job_ids: Iterable[str], name: str) -> None:
        """Cancel jobs that count as lost, by id and name: SLURM may have given an id anew."""
        if ids := sorted(set(job_ids)):
            outcome = await self._execute(self._scheduler.cancel_command(ids, name))
            log.debug("%s", outcome)  # it fails for a job that is really gone

    async def _execute(self, command: list[str]) -> Outcome:
        return await execute(
            command, environment=self._environment, timeout_s=self._settings.submit_timeout_s
        )

    def _is_answer(self, outcome: Outcome) -> bool:
        return self._scheduler.is_answer(outcome.code, outcome.output, outcome.errors)
