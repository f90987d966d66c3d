"""What has become of the runs of a job: what their exit records and the scheduler say, joined."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from motoko_core.interfaces import Ended, ExitRecord, LaunchTask
from motoko_plugins.generators._records import forbid
from motoko_plugins.generators._scheduler import Phase, Scheduler, Seen, Settings
from motoko_plugins.generators._scheduler_jobs import (
    Job,
    Stage,
    any_begun,
    end_of,
    is_forbidden,
    which,
)
from motoko_plugins.generators._scheduler_times import Times

#: What becomes of a message that was under way when its sender was killed is decided after this.
_IN_FLIGHT_S = 10.0
#: What a job script ends with that could not enter the directory of a run.
_OUT_OF_REACH = 126


class Judge:
    """Decides which runs have ended, and how.

    :param times: when the scheduler is asked next, if nothing can be decided yet.
    :param has_history: whether the scheduler is also asked about jobs that the queue has forgotten.
    :param end: called with each end of a run, once.
    :param forget: called with a job that is of no interest any more.
    :param retry: called with a job that was certainly not submitted.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        times: Times,
        has_history: Callable[[], bool],
        *,
        end: Callable[[Job, LaunchTask, Ended], None],
        forget: Callable[[Job], None],
        retry: Callable[[Job], None],
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._times = times
        self._has_history = has_history
        self._end = end
        self._forget = forget
        self._retry = retry
        #: Name of lost jobs -> what the scheduler called them: they are to be cancelled.
        self.lost: dict[str, set[str]] = defaultdict(set)

    def finish(
        self,
        job: Job,
        task: LaunchTask,
        record: ExitRecord | None,
        seen: Seen | None = None,
        message: str = "",
    ) -> None:
        """End a run as its record and the scheduler say."""
        job.noticed.discard(task.tag)
        job.undecided.pop(task.tag, None)
        if is_forbidden(record) and len(job.tasks) == 1 and job.over_since is None:
            job.kills = True  # it may wait in the queue, for nothing
        cancelled = task.tag in (job.unwanted if is_forbidden(record) else job.cancelled)
        self._end(
            job, task, end_of(task.tag, record=record, seen=seen, is_cancelled=cancelled, message=message)
        )

    def decide(
        self, job: Job, entries: Sequence[Seen], records: Mapping[str, ExitRecord], now: float
    ) -> list[LaunchTask]:
        """Decide for each run of a job that is over or unknown; what is not decided is looked at again.

        :return: those that another job is to execute.
        """
        if not job.tasks:
            if job.over_since is not None or self._is_lost(job, now):
                self._forget(job)
            return []
        again: list[LaunchTask] = []
        tasks, goes_on = list(job.tasks), False
        for task in reversed(tasks):
            if goes_on:
                job.passed.add(task.tag)
            goes_on = goes_on or any_begun([task], records)
        job.has_begun = job.has_begun or goes_on
        for task in tasks:
            record = records.get(task.tag)
            seen = which(entries, record)
            is_passed = task.tag in job.passed
            code = None if record is None else record.exit_code
            if code == 0 or (code is not None and is_passed) or is_forbidden(record):
                self.finish(job, task, record)
            elif seen is None:
                self._miss(job, task, record, now)
            elif seen.phase is not Phase.OVER:
                continue
            elif code is None and self._may_come(job, now):
                self._times.ask_within(self._times.short_s)
            elif is_passed and record is None and not self._is_decided(job, task, now):
                self._times.ask_within(self._times.short_s)  # its record has come this moment
            # (What a job has passed by, for want of its directory, say, the next one would pass by, too.)
            elif (
                not is_passed
                and self._goes_again(job, task, record, seen)
                and not self._is_unclear(job, task, now)
            ):
                again.append(task)
            else:
                message = f"{self._scheduler.title} says of job {seen.job_id}: {seen.word}"
                if record is None:
                    message += "; the run had not begun"
                is_of_interest = record is None or seen.reason is not None or code is None
                self.finish(job, task, record, seen, message if is_of_interest else "")
        return again

    async def hand_back(
        self, job: Job, tasks: Sequence[LaunchTask], records: Mapping[str, ExitRecord]
    ) -> None:
        """Have runs launched again that a job leaves behind: under their tags, nobody executes them now."""
        # (What cannot be kept from beginning now is looked at again.)
        never = await asyncio.to_thread(lambda: [t for t in tasks if forbid(t) or t.tag in records])
        now = asyncio.get_running_loop().time()
        for task in tasks:
            if task not in never:
                job.undecided.setdefault(task.tag, now)
        message = f"{self._scheduler.title} has ended job {', '.join(sorted(job.job_ids))} before"
        for task in never:
            job.undecided.pop(task.tag, None)
            self._end(job, task, Ended(tag=task.tag, exit_code=None, again=True, message=message))

    def _is_decided(self, job: Job, task: LaunchTask, now: float) -> bool:
        """Whether a run without a record never begins under its tag, or nobody will tell any more."""
        if forbid(task):
            job.undecided.pop(task.tag, None)
            return True
        job.undecided.setdefault(task.tag, now)
        return self._is_unclear(job, task, now)

    def _is_unclear(self, job: Job, task: LaunchTask, now: float) -> bool:
        """Whether it has been tried for long enough: the record of a job that was killed as it began stays
        empty, and a run directory may be read-only for good."""
        return now - job.undecided.get(task.tag, now) >= self._settings.lost_after_s

    def _may_come(self, job: Job, now: float) -> bool:
        """Whether a record may still be on its way here, over a network file system."""
        return job.over_since is not None and now - job.over_since < self._times.short_s

    def _goes_again(self, job: Job, task: LaunchTask, record: ExitRecord | None, seen: Seen) -> bool:
        """Whether another job is to execute a run that a job leaves behind.

        If we have cancelled the job because of another of its runs; or else if it had not begun, unless
        somebody has cancelled the job, or none of its runs had begun: the next job would not do better. One
        of which nobody can tell whether it had begun ends as the scheduler says.
        """
        if job.kills:
            return task.tag not in job.cancelled
        would_not_do_better = seen.reason is None and seen.exit_code in (0, _OUT_OF_REACH)
        had_not_begun = record is None and job.has_begun and job.unread_since is None
        return had_not_begun and not would_not_do_better and seen.reason != "CANCELLED"

    def _is_lost(self, job: Job, now: float) -> bool:
        """Whether a missing job has been missing for too long to come back."""
        if job.missing_since is None:
            return False
        return now - max(job.missing_since, job.since) >= self._patience_s(job)

    def _patience_s(self, job: Job) -> float:
        limit = self._settings.lost_after_s
        return min(limit, _IN_FLIGHT_S) if job.stage is Stage.UNCLEAR else limit

    def _miss(self, job: Job, task: LaunchTask, record: ExitRecord | None, now: float) -> None:
        """Decide for a run whose job the scheduler does not know."""
        if record is not None and record.exit_code is not None:
            self.finish(job, task, record)
            return
        if not self._is_lost(job, now):
            self._times.ask_within(max(self._times.short_s, self._patience_s(job) / 4))
            return
        had_not_begun = record is None and job.has_begun and not job.was_dropped
        had_not_begun = had_not_begun and task.tag not in job.passed
        if job.stage is Stage.UNCLEAR and record is None and not had_not_begun:
            if job.unread_since is None:
                job.undecided.pop(task.tag, None)
                self._retry(job)
                return
            job.undecided.setdefault(task.tag, now)
            if not self._is_unclear(job, task, now):
                return
        if record is None and not self._is_decided(job, task, now):
            return  # it has begun just now
        if had_not_begun and not self._is_unclear(job, task, now):
            message = f"{self._scheduler.title} does not know its job any more, which has executed others"
            self._end(job, task, Ended(tag=task.tag, exit_code=None, again=True, message=message))
            return
        # Should the queue have told less than it knows, nothing goes on beside what is made of the loss.
        self.lost[job.name] |= job.job_ids
        name = ", ".join(sorted(job.job_ids)) or f"named {job.name}"
        asked = "neither queue nor accounting know" if self._has_history() else "the queue does not know"
        told = "that the run has begun, not how it ended" if record else "nothing of the run"
        message = f"{self._scheduler.title}: {asked} job {name} any more, and the run directory says {told}"
        reason = "LOST"
        if record is None and job.was_dropped:  # SLURM keeps no trace of a waiting element that is cancelled
            reason = "CANCELLED"
            message += "; it was waiting, and others of its array are known: it was cancelled"
        self._end(job, task, Ended(tag=task.tag, exit_code=None, reason=reason, message=message))
