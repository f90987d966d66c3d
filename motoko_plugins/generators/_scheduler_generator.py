"""The generator for batch schedulers: SLURM and PBS differ in their :class:`Scheduler` only."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, ClassVar

from motoko_core.errors import ConfigError, MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_plugins.generators._environment import job_environment
from motoko_plugins.generators._records import close_records, forbid
from motoko_plugins.generators._scheduler import Scheduler
from motoko_plugins.generators._scheduler_follow import Follower
from motoko_plugins.generators._scheduler_jobs import Job, Stage, keep_from_beginning, never_begins
from motoko_plugins.generators._scheduler_plan import Plan, handle_of
from motoko_plugins.generators._scheduler_queries import Queries
from motoko_plugins.generators._scheduler_submit import Submitter
from motoko_plugins.generators._waiting import wait_until_set

log = logging.getLogger(__name__)

#: How long submit() waits for the scheduler's answers; what has none by then is found by its name.
_PATIENCE_S = 2.0
#: Records that are closed in one go, and at the end: directories may be far away.
_RECORDS = 100
_LAST_RECORDS = 1000


class SchedulerGenerator(JobGenerator):
    """Submits runs to a batch scheduler, in arrays, and follows them.

    Jobs are known by their names, which are Motoko's own: the name and the index are stored before anything
    is submitted. So whatever becomes of a submission or of the launcher, the job is found again, or it is
    certain that there is none; and should there be two, the exit record keeps the second from executing the
    run.

    :raises ConfigError: the scheduler's program is not on the PATH.
    """

    shares_jobs: ClassVar[bool] = True
    scheduler_class: ClassVar[type[Scheduler]]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options if options is not None else self.Options())
        self.scheduler = self.scheduler_class(self.options)
        self._environment = self.scheduler.environment(job_environment())
        program = self.scheduler.submit_program
        if shutil.which(program, path=self._environment.get("PATH")) is None:
            raise ConfigError(
                f"the program {program!r}, which submits jobs, is not on the PATH",
                hint="Start Motoko where jobs are submitted (a login node; `module load` may be needed), or "
                "choose another generator: `generator: bash` in motoko.yaml, or --generator bash.",
            )
        self._jobs: dict[tuple[str, int], Job] = {}
        self._by_tag: dict[str, Job] = {}
        self._plan = Plan(self.scheduler, self.options.max_array_size, self._environment)
        self._ends: asyncio.Queue[Ended | BaseException] = asyncio.Queue()
        self._unclosed: list[LaunchTask] = []
        self._some_unclosed = asyncio.Event()
        self._some_ended = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._submitter = Submitter(
            self.scheduler,
            self.options,
            self._environment,
            in_queue=self._in_queue,
            refuse=self._refuse,
            submitted=lambda: self._follower.look_soon(),
        )
        self._queries = Queries(self.scheduler, self.options, self._environment)
        self._follower = Follower(
            self.scheduler,
            self.options,
            self._queries,
            self._jobs,
            end=self._end,
            forget=self._forget,
            retry=self._retry,
            answered=self._submitter.scheduler_answers,
        )

    # ------------------------------------------------------------------ planning

    def room(self) -> int | None:
        """Free places in the queue, times the runs that a job takes; None without ``max_jobs``."""
        limit: int | None = self.options.max_jobs
        if limit is None:
            return None
        held = min(limit, self._submitter.held)
        return max(0, limit - len(self._jobs) + held) * int(self.options.runs_per_job)

    def _in_queue(self) -> int:
        return sum(job.stage is not Stage.PLANNED for job in self._jobs.values())

    def intents(self, batch: Sequence[LaunchTask]) -> Sequence[Mapping[str, Any]]:
        """Give each run the name and the index of its job, and its place among the runs of that job."""
        return self._plan.intents(batch)

    # ------------------------------------------------------------------ submitting

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Submit in as few calls as can be; what has no clear answer soon is followed by its name."""
        self._start()
        jobs: dict[tuple[str, int], Job] = {}
        errors: dict[str, str] = {}
        for task, planned in zip(batch, self._plan.take(batch), strict=True):
            if isinstance(planned, str):
                errors[task.tag] = planned
                continue
            name, index, request = planned
            job = jobs.setdefault((name, index), Job(name=name, index=index, request=request))
            job.tasks.append(task)
            self._by_tag[task.tag] = job
        loop = asyncio.get_running_loop()
        of_job = {job: list(job.tasks) for job in jobs.values()}
        waiting = []
        for job in of_job:
            job.answer = loop.create_future()
            waiting.append(job.answer)
        self._jobs.update(jobs)
        self._submitter.plan(list(jobs.values()))
        if waiting:
            await asyncio.wait(waiting, timeout=_PATIENCE_S)
        answers = {}
        for job, tasks in of_job.items():
            job.answer = None
            for place, task in enumerate(tasks):
                if job.error is None:
                    several = job.request is not None and job.request.runs_per_job > 1
                    handle = handle_of(job.name, job.index, place if several else None, job.job_ids)
                    answers[task.tag] = Submitted(tag=task.tag, handle=handle)
                else:
                    errors[task.tag] = job.error
        for task in batch:
            if task.tag not in answers:
                error = f"cannot submit {task.task}: {errors[task.tag]}"
                answers[task.tag] = Submitted(tag=task.tag, error=error)
        return [answers[task.tag] for task in batch]

    def _refuse(self, jobs: Sequence[Job], why: str) -> None:
        """Jobs that the scheduler does not take: tell who waits, or report their ends.

        The scheduler may say so of one that it has all the same: what has begun is followed, the rest never
        begins. (A job's runs begin in their order.)
        """
        for job in jobs:
            if not job.tasks:
                self._forget(job)
                continue
            never = list(takewhile(forbid, job.tasks))
            is_waited_for = job.answer is not None and not job.answer.done()
            if is_waited_for and len(never) == len(job.tasks):
                job.error = why
                for task in job.tasks:
                    del self._by_tag[task.tag]
                self._forget(job)
                continue
            for task in never:
                self._end(job, task, Ended(tag=task.tag, exit_code=None, reason="SUBMIT", message=why))
            if job.tasks:
                job.stage = Stage.UNCLEAR
                self._follower.look_soon()

    def _retry(self, job: Job) -> None:
        for task in [task for task in job.tasks if task.tag in job.cancelled]:
            self._end(job, task, Ended(tag=task.tag, exit_code=None, reason="CANCELLED"))
        if job.tasks:
            self._submitter.plan_again(job)
        else:
            self._forget(job)

    # ------------------------------------------------------------------ following

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Follow what may have been submitted.

        What the scheduler does not know, and has not begun, was not; and if it shows after all, it is not
        executed. Nor is what an earlier launcher has kept from beginning. While the scheduler does not
        answer, everything may have been submitted; what turns out not to be is submitted then.
        """
        self._start()
        loop = asyncio.get_running_loop()
        adopted: set[str] = set()
        places: dict[str, int] = {}
        kept = await asyncio.to_thread(lambda: {task.tag for task, _ in batch if never_begins(task)})
        never = await self._never_submitted([one for one in batch if one[0].tag not in kept])
        for task, handle in sorted(batch, key=lambda one: one[0].tag in kept):
            if task.tag in self._by_tag:
                adopted.add(task.tag)
            elif task.tag in never:
                continue
            elif handle and handle.get("name"):
                name, index = str(handle["name"]), int(handle.get("index") or 0)
                job = self._jobs.get((name, index))
                if job is None:
                    job = self._jobs[name, index] = Job(
                        name=name, index=index, request=None, stage=Stage.UNCLEAR, since=loop.time()
                    )
                if job.request is None:
                    with suppress(MotokoError):  # it was right when it was submitted
                        job.request = self._plan.request(task)
                if handle.get("job"):
                    job.job_ids.add(str(handle["job"]))
                    job.stage = Stage.KNOWN
                if task.tag in kept:
                    continue  # its job may wait all the same, for nothing
                job.tasks.append(task)
                places[task.tag] = int(handle.get("place") or 0)
                self._by_tag[task.tag] = job
                adopted.add(task.tag)
        for job in {id(job): job for tag in places if (job := self._by_tag[tag])}.values():
            job.tasks.sort(key=lambda task: places.get(task.tag, 0))
            # Those before them have ended. (If that was before they began, it is tried once too often.)
            job.has_begun = job.has_begun or places.get(job.tasks[0].tag, 0) > 0
        if self._jobs:
            self._follower.look_soon(at_once=True)
        return adopted

    async def _never_submitted(
        self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]
    ) -> set[str]:
        """Find the runs whose intent is all that is known, and that never begin."""
        doubtful = [
            (task, (str(handle["name"]), int(handle.get("index") or 0)))
            for task, handle in batch
            if handle and handle.get("name") and not handle.get("job")
        ]
        if not doubtful:
            return set()
        try:
            known = {(entry.name, entry.index or 0) for entry in await self._queries.queue()}
        except ValueError as error:
            log.warning("%s does not answer: %s", self.scheduler.title, error)
            return set()
        absent = [task for task, key in doubtful if key not in known]
        return await asyncio.to_thread(lambda: {task.tag for task in absent if forbid(task)})

    async def ended(self) -> AsyncIterator[Ended]:
        """Yield the ends as they become known.

        :raises Exception: a mistake in this module; nothing is followed any more.
        """
        while True:
            end = await self._ends.get()
            if isinstance(end, BaseException):
                raise end
            yield end

    def _end(self, job: Job, task: LaunchTask, end: Ended) -> None:
        if self._by_tag.pop(task.tag, None) is None:
            return
        job.tasks.remove(task)
        job.cancelled.discard(task.tag)
        job.unwanted.discard(task.tag)
        self._ends.put_nowait(end)
        if end.exit_code != 0:
            self._unclosed.append(task)
            self._some_unclosed.set()
        self._some_ended.set()
        if not job.tasks and (job.stage is Stage.PLANNED or not job.kills):
            self._forget(job)

    async def _close_records(self) -> None:
        """Have jobs that are started again execute no run whose end has been told.

        One that has not ended well may be: by its site, or because somebody asks the scheduler for that; and
        another job may have got the run since.
        """
        while True:
            await self._some_unclosed.wait()
            batch = self._unclosed[:_RECORDS]
            await asyncio.to_thread(close_records, batch)
            del self._unclosed[: len(batch)]
            if not self._unclosed:
                self._some_unclosed.clear()

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.key, None)
        self._submitter.drop(job)
        self._submitter.wake()

    # ------------------------------------------------------------------ ending

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop runs; returns when they have ended, or after ``grace_s``.

        A run that has not begun never will. Of a job with several runs the one under way can only be stopped
        with the whole job: the runs after it are kept from beginning in it, and go into another one.
        """
        loop = asyncio.get_running_loop()
        kills: list[str] = []
        wanted = {tag for tag in tags if tag in self._by_tag}
        jobs = list({self._by_tag[tag] for tag in wanted})
        for job in jobs:
            job.unwanted |= {task.tag for task in job.tasks} & wanted
        batch = [(job, list(job.tasks)) for job in jobs]
        blocked, kept = await asyncio.to_thread(
            keep_from_beginning, [tasks for _, tasks in batch], frozenset(wanted)
        )
        for job, tasks in batch:
            for task in tasks:
                if task.tag in kept:
                    why = "its job is stopped because of another run"
                    self._end(job, task, Ended(tag=task.tag, exit_code=None, again=True, message=why))
        for task in [task for _, tasks in batch for task in tasks if task.tag in wanted]:
            if task.tag not in self._by_tag:
                wanted.discard(task.tag)
                continue
            job = self._by_tag[task.tag]
            job.unwanted.discard(task.tag)
            if blocked[task.tag] is None:
                wanted.discard(task.tag)  # it ended by itself
                continue
            if blocked[task.tag]:
                if len(job.tasks) == 1 and job.stage is not Stage.PLANNED:
                    job.kills = True  # the job is still to be cancelled
                self._end(job, task, Ended(tag=task.tag, exit_code=None, reason="CANCELLED"))
                wanted.discard(task.tag)
            else:
                job.cancelled.add(task.tag)
                job.kills = True
        for job in jobs:
            if job.kills and job.job_ids:
                job.killed_at = loop.time()
                kills += job.job_ids
        await self._queries.cancel(kills)
        deadline = loop.time() + grace_s
        while wanted & self._by_tag.keys() and loop.time() < deadline:
            self._some_ended.clear()
            self._follower.look_soon()
            await wait_until_set(self._some_ended, min(1.0, max(0.0, deadline - loop.time())))
        if self._jobs:
            self._follower.look_soon()

    async def close(self) -> None:
        """Stop following; the jobs go on, and another generator can adopt them."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._unclosed:
            # (The last ones may have been interrupted just now; the first may just have been kept back.)
            await asyncio.to_thread(close_records, self._unclosed[-_LAST_RECORDS:])
            if more := len(self._unclosed[:-_LAST_RECORDS]):
                log.warning("%d runs that have ended may be executed again if their jobs are requeued", more)
            self._unclosed.clear()
        self._workers.clear()
        self._jobs.clear()
        self._by_tag.clear()

    def _start(self) -> None:
        """Begin to work in the background; not before there is something to do."""
        if self._workers:
            return
        work = [self._submitter.work(), self._follower.work(), self._close_records()]
        for coroutine in work:
            worker = asyncio.create_task(coroutine)
            worker.add_done_callback(self._worker_ended)
            self._workers.append(worker)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._ends.put_nowait(error)
