"""Following jobs: one look at the queue for all of them, and at the exit records in between."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from motoko_core.interfaces import Ended, ExitRecord, LaunchTask
from motoko_plugins.generators._records import forbid
from motoko_plugins.generators._scheduler import Phase, Scheduler, Seen, Settings
from motoko_plugins.generators._scheduler_jobs import (
    Job,
    Stage,
    end_of,
    is_forbidden,
    read_records,
    which,
)
from motoko_plugins.generators._scheduler_queries import Queries
from motoko_plugins.generators._scheduler_times import Times

log = logging.getLogger(__name__)

#: What becomes of a message that was under way when its sender was killed is decided after this.
_IN_FLIGHT_S = 10.0
#: A job that was cancelled may take its time to end: it may save something.
_KILL_AGAIN_S = 60.0
#: What a job script ends with that could not enter the directory of a run.
_OUT_OF_REACH = 126


class Follower:
    """Looks at jobs until they are over.

    :param jobs: by name and index; changed by others while the follower waits.
    :param end: called with each end of a run, once.
    :param retry: called with a job that was certainly not submitted.
    :param answered: called when the scheduler answers.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        queries: Queries,
        jobs: Mapping[tuple[str, int], Job],
        *,
        end: Callable[[Job, LaunchTask, Ended], None],
        forget: Callable[[Job], None],
        retry: Callable[[Job], None],
        answered: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._queries = queries
        self._jobs = jobs
        self._end = end
        self._forget = forget
        self._retry = retry
        self._answered = answered
        self._times = Times(settings.poll_interval_s)
        self._unknown_words: set[str] = set()
        self._noticed: set[str] = set()
        #: Tag of a run that neither has a record nor can be kept from getting one -> since when.
        self._undecided: dict[str, float] = {}
        self._lost: dict[str, set[str]] = defaultdict(set)

    def look_soon(self, *, at_once: bool = False) -> None:
        """Look earlier than planned: something was submitted, or is about to end."""
        self._times.look_soon(at_once=at_once)

    async def work(self) -> None:
        """Follow, for ever."""
        loop, times = asyncio.get_running_loop(), self._times
        while True:
            if not any(job.is_submitted for job in self._jobs.values()):
                await times.wait(for_jobs=True)
            elif times.are_records_due:
                began = loop.time()
                await self._look_at_records()
                times.has_read(loop.time() - began)
            elif times.is_queue_due:
                times.asks()
                await self._look_at_queue()
            else:
                await times.wait()

    # ------------------------------------------------------------------ exit records

    async def _look_at_records(self) -> None:
        """End the runs whose records say so beyond doubt."""
        jobs = [job for job in self._jobs.values() if job.is_submitted and job.tasks]
        found = await self._read(jobs)
        for job in jobs:
            if (records := found.get(job.key)) is None:
                continue
            tasks = list(job.tasks)
            for number, task in enumerate(tasks):
                record = records.get(task.tag)
                if record is None:
                    break
                job.has_begun = job.has_begun or not is_forbidden(record)
                if record.exit_code is None:
                    break
                # A failure may be the scheduler's doing, which it alone can tell, unless the job goes on.
                goes_on = _has_begun(tasks[number + 1 :], records)
                if record.exit_code == 0 or goes_on or task.tag in job.cancelled or is_forbidden(record):
                    self._finish(job, task, record, None)
                elif task.tag not in self._noticed:
                    self._noticed.add(task.tag)
                    self._times.ask_now()

    async def _read(
        self, jobs: Sequence[Job], *, everything: bool = False
    ) -> dict[tuple[str, int], dict[str, ExitRecord]]:
        """Read the records of jobs' runs in a thread: their directories may be far away.

        A job whose records cannot be read now is left out, until it is given up like one that is missing.
        """
        answers = await asyncio.to_thread(_try_to_read, [(job, list(job.tasks)) for job in jobs], everything)
        found, now = {}, asyncio.get_running_loop().time()
        for job, answer in answers:
            if not isinstance(answer, OSError):
                job.unread_since = None
                found[job.key] = answer
                continue
            if job.unread_since is None:
                job.unread_since = now
                log.warning("the run directories of job %s are out of reach: %s", job.name, answer)
            if now - job.unread_since >= self._settings.lost_after_s:
                found[job.key] = {}
        return found

    def _finish(
        self, job: Job, task: LaunchTask, record: ExitRecord | None, seen: Seen | None, message: str = ""
    ) -> None:
        self._noticed.discard(task.tag)
        self._undecided.pop(task.tag, None)
        if is_forbidden(record) and len(job.tasks) == 1 and job.over_since is None:
            job.kills = True  # it may wait in the queue, for nothing
        cancelled = task.tag in (job.unwanted if is_forbidden(record) else job.cancelled)
        self._end(
            job, task, end_of(task.tag, record=record, seen=seen, is_cancelled=cancelled, message=message)
        )

    # ------------------------------------------------------------------ the queue

    async def _look_at_queue(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            seen = await self._queries.queue()
        except ValueError as error:
            if not self._times.is_silent:
                what = f"{self._scheduler.title} does not answer, its jobs are left as they are"
                log.warning("%s: %s", what, error)
            self._times.has_no_answer()  # nothing is known now, and nothing is concluded from that
            return
        if self._times.is_silent:
            log.warning("%s answers again", self._scheduler.title)
        self._times.has_answered()
        self._answered()
        by_key: dict[tuple[str, int], list[Seen]] = defaultdict(list)
        for entry in seen:
            by_key[entry.name, entry.index or 0].append(entry)
        # (What was submitted after the question is not in the answer.)
        jobs = [job for job in self._jobs.values() if job.is_submitted and job.since <= asked]
        now = loop.time()
        names = {name for name, _ in by_key}
        changed = [job for job in jobs if self._note(job, by_key.get(job.key, []), names, now)]
        self._times.has_told(news=bool(changed))
        await self._settle(jobs, by_key)
        while self._lost:
            name, job_ids = self._lost.popitem()
            await self._queries.cancel_lost(job_ids, name)
        await self._kill(jobs, by_key)

    def _note(self, job: Job, entries: Sequence[Seen], names: Container[str], now: float) -> bool:
        """Take in what the queue says of a job; answer whether that is new.

        :param names: of all jobs that the queue knows.
        """
        if not entries:
            if job.missing_since is None:
                job.missing_since = now
                job.was_dropped = job.waits and job.name in names
            return False
        job.missing_since = None
        job.was_dropped = False
        job.waits = all(entry.phase is Phase.WAITING for entry in entries)
        job.stage = Stage.KNOWN
        job.job_ids = {entry.job_id for entry in entries}
        for entry in entries:
            if entry.phase is Phase.UNKNOWN and entry.word not in self._unknown_words:
                self._unknown_words.add(entry.word)
                log.warning("%s says %r, which means nothing to Motoko", self._scheduler.title, entry.word)
        alive = any(entry.phase is not Phase.OVER for entry in entries)
        if alive:
            for task in job.tasks:
                self._undecided.pop(task.tag, None)
        job.over_since = None if alive else (now if job.over_since is None else job.over_since)
        word = " ".join(entry.word for entry in entries if entry.phase is not Phase.UNKNOWN)
        changed = bool(word) and word != job.word
        job.word = word or job.word
        return changed

    # ------------------------------------------------------------------ ends

    async def _settle(self, jobs: Iterable[Job], by_key: Mapping[tuple[str, int], Sequence[Seen]]) -> None:
        """End what is over or gone."""
        now = asyncio.get_running_loop().time()
        doubtful = [job for job in jobs if job.over_since is not None or job.missing_since is not None]
        if not doubtful:
            return
        records = await self._read(doubtful, everything=True)
        doubtful = [job for job in doubtful if job.key in records]
        missing = [job for job in doubtful if job.missing_since is not None]
        history = await self._history(missing, records) if missing else {}
        for job in doubtful:
            if job.key not in self._jobs:
                continue
            entries = list(by_key.get(job.key, ()))
            entries += [history[name] for name in _record_jobs(job, records[job.key]) if name in history]
            if again := self._judge(job, entries, records[job.key], now):
                await self._hand_back(job, again, records[job.key])

    def _judge(
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
            goes_on = goes_on or _has_begun([task], records)
        job.has_begun = job.has_begun or goes_on
        for task in tasks:
            record = records.get(task.tag)
            seen = which(entries, record)
            is_passed = task.tag in job.passed
            code = None if record is None else record.exit_code
            if code == 0 or (code is not None and is_passed) or is_forbidden(record):
                self._finish(job, task, record, None)
            elif seen is None:
                self._miss(job, task, record, now)
            elif seen.phase is not Phase.OVER:
                continue
            elif code is None and self._may_come(job, now):
                self._times.ask_within(self._times.short_s)
            elif is_passed and record is None and not self._is_decided(task, now):
                self._times.ask_within(self._times.short_s)  # its record has come this moment
            # (What a job has passed by, for want of its directory, say, the next one would pass by, too.)
            elif (
                not is_passed
                and self._goes_again(job, task, record, seen)
                and not self._is_unclear(task, now)
            ):
                again.append(task)
            else:
                message = f"{self._scheduler.title} says of job {seen.job_id}: {seen.word}"
                if record is None:
                    message += "; the run had not begun"
                is_of_interest = record is None or seen.reason is not None or code is None
                self._finish(job, task, record, seen, message if is_of_interest else "")
        return again

    async def _hand_back(
        self, job: Job, tasks: Sequence[LaunchTask], records: Mapping[str, ExitRecord]
    ) -> None:
        """Have runs launched again that a job leaves behind: under their tags, nobody executes them now."""
        # (What cannot be kept from beginning now is looked at again.)
        never = await asyncio.to_thread(lambda: [t for t in tasks if forbid(t) or t.tag in records])
        now = asyncio.get_running_loop().time()
        for task in tasks:
            if task not in never:
                self._undecided.setdefault(task.tag, now)
        message = f"{self._scheduler.title} has ended job {', '.join(sorted(job.job_ids))} before"
        for task in never:
            self._undecided.pop(task.tag, None)
            self._end(job, task, Ended(tag=task.tag, exit_code=None, again=True, message=message))

    def _is_decided(self, task: LaunchTask, now: float) -> bool:
        """Whether a run without a record never begins under its tag, or nobody will tell any more."""
        if forbid(task):
            self._undecided.pop(task.tag, None)
            return True
        self._undecided.setdefault(task.tag, now)
        return self._is_unclear(task, now)

    def _is_unclear(self, task: LaunchTask, now: float) -> bool:
        """Whether it has been tried for long enough: the record of a job that was killed as it began stays
        empty, and a run directory may be read-only for good."""
        return now - self._undecided.get(task.tag, now) >= self._settings.lost_after_s

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
            self._finish(job, task, record, None)
            return
        if not self._is_lost(job, now):
            self._times.ask_within(max(self._times.short_s, self._patience_s(job) / 4))
            return
        had_not_begun = record is None and job.has_begun and not job.was_dropped
        had_not_begun = had_not_begun and task.tag not in job.passed
        if job.stage is Stage.UNCLEAR and record is None and not had_not_begun:
            if job.unread_since is None:
                self._undecided.pop(task.tag, None)
                self._retry(job)
                return
            self._undecided.setdefault(task.tag, now)
            if not self._is_unclear(task, now):
                return
        if record is None and not self._is_decided(task, now):
            return  # it has begun just now
        if had_not_begun and not self._is_unclear(task, now):
            message = f"{self._scheduler.title} does not know its job any more, which has executed others"
            self._end(job, task, Ended(tag=task.tag, exit_code=None, again=True, message=message))
            return
        # Should the queue have told less than it knows, nothing goes on beside what is made of the loss.
        self._lost[job.name] |= job.job_ids
        name = ", ".join(sorted(job.job_ids)) or f"named {job.name}"
        asked = (
            "neither queue nor accounting know" if self._queries.has_history else "the queue does not know"
        )
        told = "that the run has begun, not how it ended" if record else "nothing of the run"
        message = f"{self._scheduler.title}: {asked} job {name} any more, and the run directory says {told}"
        reason = "LOST"
        if record is None and job.was_dropped:  # SLURM keeps no trace of a waiting element that is cancelled
            reason = "CANCELLED"
            message += "; it was waiting, and others of its array are known: it was cancelled"
        self._end(job, task, Ended(tag=task.tag, exit_code=None, reason=reason, message=message))

    async def _history(
        self, jobs: Sequence[Job], records: Mapping[tuple[str, int], Mapping[str, ExitRecord]]
    ) -> dict[str, Seen]:
        """Ask the accounting of jobs that the queue has forgotten; by the name that they have in records."""
        ids = {job_id for job in jobs for job_id in job.job_ids}
        for job in jobs:
            ids |= {record.job for record in records[job.key].values() if not is_forbidden(record)}
        return {entry.record_job: entry for entry in await self._queries.history(ids)}

    # ------------------------------------------------------------------ cancelling

    async def _kill(self, jobs: Iterable[Job], by_key: Mapping[tuple[str, int], Sequence[Seen]]) -> None:
        """Cancel what nobody wants any more: jobs without runs, and those that were submitted twice."""
        ids = []
        now = asyncio.get_running_loop().time()
        for job in jobs:
            alive = [entry for entry in by_key.get(job.key, ()) if entry.phase is not Phase.OVER]
            if not job.tasks or job.kills:
                if now - job.killed_at >= _KILL_AGAIN_S and alive:
                    job.killed_at = now
                    ids += [entry.job_id for entry in alive]
            elif alive and len(by_key[job.key]) > 1 and len(job.tasks) == 1:
                # Once one of them executes the run, the others never will.
                records = await self._read([job])
                record = records.get(job.key, {}).get(job.tasks[0].tag)
                if record is not None:
                    ids += [entry.job_id for entry in alive if entry.record_job != record.job]
        await self._queries.cancel(ids)


def _try_to_read(
    jobs: Sequence[tuple[Job, Sequence[LaunchTask]]], everything: bool
) -> list[tuple[Job, dict[str, ExitRecord] | OSError]]:
    answers: list[tuple[Job, dict[str, ExitRecord] | OSError]] = []
    for job, tasks in jobs:
        try:
            answers.append((job, read_records(tasks, everything=everything)))
        except OSError as error:
            answers.append((job, error))
    return answers


def _has_begun(tasks: Iterable[LaunchTask], records: Mapping[str, ExitRecord]) -> bool:
    """Whether one of these runs has."""
    found = [records[task.tag] for task in tasks if task.tag in records]
    return any(not is_forbidden(record) for record in found)


def _record_jobs(job: Job, records: Mapping[str, ExitRecord]) -> set[str]:
    """What a job may be called in the accounting."""
    return {record.job for record in records.values()} | job.job_ids | {f"{name}_0" for name in job.job_ids}
