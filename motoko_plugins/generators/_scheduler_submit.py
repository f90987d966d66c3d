"""Submitting jobs, where an answer may be missing, wrong or late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby

import attrs

from motoko_plugins.generators._commands import Outcome, execute, script_file
from motoko_plugins.generators._job_script import to_bytes
from motoko_plugins.generators._scheduler import Refusal, Request, Scheduler, Settings, Submission
from motoko_plugins.generators._scheduler_jobs import Job, Stage
from motoko_plugins.generators._waiting import wait_until_set

log = logging.getLogger(__name__)

#: Submissions of which nobody knows why they fail; then the runs fail.
_TRIES = 3
#: How long to wait before a scheduler that takes no jobs is tried again: at first, and at most.
_BACKOFF_S = (1.0, 60.0)


@attrs.define(eq=False)
class _Backoff:
    delay_s: float = 0.0
    until: float = 0.0

    def further(self, now: float) -> None:
        first, most = _BACKOFF_S
        self.delay_s = min(most, 2 * self.delay_s) if self.delay_s else first
        self.until = now + self.delay_s

    def ease(self, now: float) -> None:
        self.delay_s = 0.0
        self.until = min(self.until, now + _BACKOFF_S[0])

    def reset(self) -> None:
        self.delay_s = self.until = 0.0


class Submitter:
    """Submits planned jobs, one call of the program after the other, within the limit of jobs.

    :param refuse: called with jobs that certainly never run, and the reason.
    :param submitted: called when there is something new to follow.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        in_queue: Callable[[], int],
        refuse: Callable[[Sequence[Job], str], None],
        submitted: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._environment = environment
        self._in_queue = in_queue
        self._refuse = refuse
        self._submitted = submitted
        self._planned: list[Job] = []
        self._tries: dict[tuple[str, int], int] = {}
        #: Elements in one submission, for what was refused as an array because of a limit.
        self._largest: dict[Request, int] = {}
        self._backoff = _Backoff()
        self._is_full = False
        #: What was refused when it was submitted alone, because of a limit: others may be taken.
        self._refused: dict[Request, _Backoff] = {}
        #: The requests of which was told that they are refused for now; None: that the scheduler is silent.
        self._warned: set[Request | None] = set()
        self._wake = asyncio.Event()

    @property
    def held(self) -> int:
        """Jobs that wait here because of a limit that others need not meet."""
        return sum(job.request in self._refused for job in self._planned)

    def plan(self, jobs: Sequence[Job]) -> None:
        """Have jobs submitted, after those that are planned already."""
        for job in jobs:
            job.stage = Stage.PLANNED
            job.job_ids.clear()
            job.missing_since = job.over_since = None
            job.has_begun = job.kills = job.waits = job.was_dropped = False
            job.killed_at = float("-inf")
        self._planned += jobs
        if self._is_full and any(job.request not in self._refused for job in jobs):
            self._backoff.ease(asyncio.get_running_loop().time())
        self._wake.set()

    def plan_again(self, job: Job) -> None:
        """Have a job submitted that certainly was not, unless that was tried often enough."""
        tries = self._tries[job.key] = self._tries.get(job.key, 0) + 1
        if tries >= _TRIES and job.refusal:
            self._refuse([job], job.refusal)
        else:
            self.plan([job])

    def drop(self, job: Job) -> None:
        """Forget a job."""
        self._tries.pop(job.key, None)
        if job in self._planned:
            self._planned.remove(job)
            job.resolve()
            if all(other.request != job.request for other in self._planned):
                self._let_go(job.request)

    def _let_go(self, request: Request | None) -> None:
        """Forget what was refused of a request."""
        self._warned -= {request, None}
        if request is not None:
            self._refused.pop(request, None)

    def wake(self) -> None:
        """Look again: there may be room."""
        self._wake.set()

    def scheduler_answers(self) -> None:
        """Wait no longer than at first if it was the scheduler's silence that was waited for."""
        if self._backoff.until and not self._is_full:
            self._backoff.ease(asyncio.get_running_loop().time())
            self._wake.set()

    async def work(self) -> None:
        """Submit, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            jobs = self._next(now) if now >= self._backoff.until else []
            if jobs:
                await self._submit(jobs)
                continue
            if self._planned and now >= self._backoff.until:  # no room
                for job in self._planned:
                    job.resolve()
            dues = [self._backoff.until, *(backoff.until for backoff in self._refused.values())]
            due = min((due for due in dues if due > now), default=None)
            timeout = due - now if due is not None and self._planned else None
            await wait_until_set(self._wake, timeout)

    def _next(self, now: float) -> list[Job]:
        """Take the jobs of one submission: of one name, and no more than there is room for."""
        planned = [job for job in self._planned if job.request not in self._refused]
        if not planned:
            due = {request for request, backoff in self._refused.items() if backoff.until <= now}
            planned = [job for job in self._planned if job.request in due]
        jobs: list[Job] = next((list(group) for _, group in groupby(planned, lambda job: job.name)), [])
        limit = self._settings.max_jobs
        room = len(jobs) if limit is None else max(0, limit - self._in_queue())
        largest = self._largest.get(jobs[0].request) if jobs and jobs[0].request else None
        jobs = jobs[: min(room, largest or room)]
        # The same index twice is another submission; so is a request of its own, after a restart.
        chosen: dict[int, Job] = {}
        for job in jobs:
            if job.index not in chosen and job.request == jobs[0].request:
                chosen[job.index] = job
        for job in chosen.values():
            self._planned.remove(job)
        return list(chosen.values())

    async def _submit(self, jobs: list[Job]) -> None:
        loop = asyncio.get_running_loop()
        request = jobs[0].request
        if request is None:
            self._refuse(jobs, "the options of the run are wrong by now")
            return
        for job in jobs:
            job.stage = Stage.SUBMITTING
        submission = Submission(
            name=jobs[0].name, request=request, elements={job.index: list(job.tasks) for job in jobs}
        )
        try:
            outcome = await self._hand_over(submission)
        finally:
            for job in jobs:  # if this is cancelled, nobody knows
                job.stage, job.since = Stage.UNCLEAR, loop.time()
        self._take(jobs, submission, outcome)
        for job in jobs:
            job.resolve()

    async def _hand_over(self, submission: Submission) -> Outcome:
        command = self._scheduler.submit_command(submission)
        script = to_bytes(self._scheduler.script(submission))
        with ExitStack() as stack:
            if self._scheduler.script_is_file:
                try:
                    command, script = [*command, stack.enter_context(script_file(script))], b""
                except OSError as error:
                    return Outcome.not_started(" ".join(command), error, is_short=True)
            return await execute(
                command,
                environment=self._environment,
                timeout_s=self._settings.submit_timeout_s,
                stdin=script,
            )

    def _take(self, jobs: list[Job], submission: Submission, outcome: Outcome) -> None:
        job_id = self._scheduler.submitted_id(outcome.output) if outcome.code == 0 else ""
        if job_id:
            self._backoff.reset()
            self._is_full = False
            self._let_go(submission.request)
            if largest := self._largest.get(submission.request):
                # (Back to the whole at once: it would be refused, or waited for, each time.)
                self._largest[submission.request] = 2 * max(largest, len(jobs))
            for job in jobs:
                job.stage = Stage.KNOWN
                job.job_ids.add(self._scheduler.element_id(job_id, job.index, is_array=submission.is_array))
            log.debug("%s has job %s: %d jobs", self._scheduler.title, job_id, len(jobs))
            self._submitted()
            return
        for job in jobs:
            job.refusal = str(outcome)
        refusal = self._scheduler.refusal(outcome.code, outcome.errors.strip() or outcome.output)
        if outcome.code is None and outcome.has_started:  # it hung
            if refusal is Refusal.LIMIT:  # it waits for room itself, longer than we wait for it
                self._largest[submission.request] = max(1, len(jobs) // 2)
            refusal = Refusal.UNREACHABLE
        elif outcome.is_short:  # this machine is what cannot be asked
            refusal = Refusal.UNREACHABLE
        now = asyncio.get_running_loop().time()
        if refusal is Refusal.PERMANENT:
            self._let_go(submission.request)
            self._refuse(jobs, str(outcome))
            return
        about = submission.request if refusal is Refusal.LIMIT else None
        log.log(logging.DEBUG if about in self._warned else logging.WARNING, "%s; it is tried again", outcome)
        self._warned.add(about)
        if refusal is Refusal.LIMIT:
            if len(jobs) > 1:  # an array is taken whole or not at all
                self._largest[submission.request] = len(jobs) // 2
            else:
                self._refused.setdefault(submission.request, _Backoff()).further(now)
                self._is_full = True
                self._backoff.further(now)
            self._planned[:0] = [job for job in jobs if job.tasks]
            self._refuse([job for job in jobs if not job.tasks], str(outcome))  # they were cancelled
            for job in jobs:
                job.stage = Stage.PLANNED
            return
        self._is_full = False
        self._backoff.further(now)
        if refusal is Refusal.UNREACHABLE:
            for job in jobs:
                self._tries[job.key] = 0
                job.refusal = ""
        self._submitted()
