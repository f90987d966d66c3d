"""Following jobs: one look at the queue for all of them, and at the exit records in between.

What is concluded from what is seen: :mod:`~motoko_plugins.generators._scheduler_judge`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from motoko_core.interfaces import Ended, ExitRecord, LaunchTask
from motoko_plugins.generators._scheduler import Phase, Scheduler, Seen, Settings
from motoko_plugins.generators._scheduler_jobs import Job, Stage, any_begun, is_forbidden, read_records
from motoko_plugins.generators._scheduler_judge import Judge
from motoko_plugins.generators._scheduler_queries import Queries
from motoko_plugins.generators._scheduler_times import Times

log = logging.getLogger(__name__)

#: A job that was cancelled may take its time to end: it may save something.
_KILL_AGAIN_S = 60.0


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
        self._answered = answered
        self._times = Times(settings.poll_interval_s)
        self._judge = Judge(
            scheduler,
            settings,
            self._times,
            lambda: queries.has_history,
            end=end,
            forget=forget,
            retry=retry,
        )
        self._unknown_words: set[str] = set()

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
                goes_on = any_begun(tasks[number + 1 :], records)
                if record.exit_code == 0 or goes_on or task.tag in job.cancelled or is_forbidden(record):
                    self._judge.finish(job, task, record)
                elif task.tag not in job.noticed:
                    job.noticed.add(task.tag)
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
        while self._judge.lost:
            name, job_ids = self._judge.lost.popitem()
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
            job.undecided.clear()
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
            if again := self._judge.decide(job, entries, records[job.key], now):
                await self._judge.hand_back(job, again, records[job.key])

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


def _record_jobs(job: Job, records: Mapping[str, ExitRecord]) -> set[str]:
    """What a job may be called in the accounting."""
    return {record.job for record in records.values()} | job.job_ids | {f"{name}_0" for name in job.job_ids}
