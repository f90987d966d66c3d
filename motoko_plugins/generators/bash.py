"""The bash generator: runs are processes on this machine, side by side as far as there are slots.

A process of its own, the spawner, starts them and writes the exit records, so that how a run ends is known
whatever becomes of the launcher.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import (
    Ended,
    JobGenerator,
    LaunchTask,
    Submitted,
    exit_record_path,
    forbid_execution,
    read_exit_record,
)
from motoko_plugins.generators._bash_options import BashOptions
from motoko_plugins.generators._machine import host_of, is_elsewhere
from motoko_plugins.generators._processes import (
    end_of,
    first_of,
    groups_of,
    living,
    processes_of,
    signal_process,
    stop_groups,
)
from motoko_plugins.generators._records import forbid, has_begun, is_locked
from motoko_plugins.generators._spawner_client import SpawnerClient, is_spawner

log = logging.getLogger(__name__)

#: Runs are taken ahead for as long as the latest ones have taken to end, so that short ones never run out ...
_AHEAD_S = 1.0
#: ... but so many at most.
_AHEAD_AT_MOST = 1000
#: How often the record of a job is read that neither process nor spawner of this machine tells about.
_POLL_S = 0.05
_POLL_ELSEWHERE_S = 2.0
#: How often it is tried again to find out about a job whose directory is out of reach.
_AGAIN_S = 2.0
#: How long the spawner may take to tell the ends of jobs that were killed.
_LAST_WORDS_S = 5.0
#: How often what a job starts while it is stopped is looked for.
_LAST_LOOKS = 5


@attrs.define(eq=False)
class _Job:
    task: LaunchTask
    pid: int | None = None
    #: The number of the spawner that has got it.
    spawner: int = 0
    #: It is to be cancelled: no other spawner may start it.
    unwanted: bool = False
    #: It was stopped.
    cancelled: bool = False
    #: Nobody could tell yet whether it has begun.
    is_unclear: bool = False
    #: Its process has ended.
    has_ended: bool = False
    #: Why nothing is seen of it, as the log says already.
    told: str = ""
    over: asyncio.Event = attrs.field(factory=asyncio.Event)
    #: Follows a job of another spawner.
    watcher: asyncio.Task[None] | None = None


class BashGenerator(JobGenerator):
    """Runs jobs as processes, each in a session of its own, which go on when the launcher ends.

    :param clock: seconds, for how many runs are taken ahead.
    """

    Options = BashOptions
    on_this_machine = True

    def __init__(
        self, options: BashOptions | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(options or BashOptions())
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._ended: asyncio.Queue[Ended | BaseException] = asyncio.Queue()
        self._end_times: deque[float] = deque(maxlen=_AHEAD_AT_MOST)
        self._spawner = SpawnerClient(self.options, self._hear, self._spawner_lost)

    def room(self) -> int:
        """As many as there are slots, and as many as have ended in the last second."""
        since = self._clock() - _AHEAD_S
        while self._end_times and self._end_times[0] < since:
            self._end_times.popleft()
        slots: int = self.options.slots
        return max(0, slots + len(self._end_times) - len(self._jobs))

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Hand the jobs to the spawner, which starts them when there is room."""
        for task in batch:
            self._jobs.setdefault(task.tag, _Job(task))
        try:
            spawner = await self._spawner.run(batch)
        except OSError as error:
            for task in batch:
                del self._jobs[task.tag]
            return [Submitted(tag=t.tag, error=f"cannot start {t.task}: {error}") for t in batch]
        for task in batch:
            self._jobs[task.tag].spawner = spawner
        return [Submitted(tag=task.tag, handle={}) for task in batch]

    # ------------------------------------------------------------------ what the spawner tells

    def _hear(self, kind: str, *words: Any) -> None:
        if kind == "dropped":
            for tag in words[0]:
                self._end(tag, None, reason="CANCELLED")
            return
        tag, value = words
        if kind == "started" and tag in self._jobs:
            self._jobs[tag].pid = value
        elif kind == "ended":
            self._end(tag, value)
        elif kind == "failed":
            self._end(tag, None, reason="SUBMIT", message=f"cannot be started: {value}")

    def _end(self, tag: str, code: int | None, *, reason: str | None = None, message: str = "") -> None:
        job = self._jobs.pop(tag, None)
        if job is None:
            return
        job.over.set()
        self._end_times.append(self._clock())
        if reason is None and code is None:
            reason = "LOST"
            message = "its process is gone, and nobody has seen how it ended"
        if job.cancelled:
            reason, message = "CANCELLED", ""
        self._ended.put_nowait(Ended(tag=tag, exit_code=code, reason=reason, message=message))

    async def _spawner_lost(self, spawner: int) -> None:
        """A spawner has died: what has begun is watched, the rest goes to the next one."""
        log.warning("the spawner has died; the jobs under way go on")
        # (The next one may have got some already.)
        jobs = [job for job in self._jobs.values() if job.watcher is None and job.spawner == spawner]
        begun = [job for job in jobs if has_begun(job.task) is not False]
        self._watch([job.task for job in begun])
        waiting = [job for job in jobs if job not in begun]
        for job in waiting:
            if job.unwanted:
                self._end(job.task.tag, None, reason="CANCELLED")
        await self._submit_again([job.task for job in waiting if not job.unwanted])

    async def _submit_again(self, tasks: Sequence[LaunchTask]) -> None:
        for answer in await self.submit(tasks) if tasks else ():
            if answer.error:
                self._jobs[answer.tag] = _Job(next(t for t in tasks if t.tag == answer.tag))
                self._end(answer.tag, None, reason="SUBMIT", message=answer.error)

    # ------------------------------------------------------------------ jobs of another spawner

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Follow the jobs that have begun or may have; the others are kept from beginning."""
        tasks = [task for task, _ in batch if task.tag not in self._jobs]
        # (One whose directory was removed has no record; it runs all the same.)
        alive = processes_of([task.tag for task in tasks]).keys()
        self._watch([task for task in tasks if task.tag in alive or not forbid(task)])
        return {task.tag for task, _ in batch if task.tag in self._jobs}

    def _watch(self, tasks: Sequence[LaunchTask]) -> None:
        found: Mapping[str, Sequence[int]] = {}
        with suppress(OSError):  # whoever follows looks again
            found = processes_of([task.tag for task in tasks])
        for task in tasks:
            job = self._jobs.setdefault(task.tag, _Job(task))
            job.pid = job.pid or first_of(found.get(task.tag, ()))
            job.is_unclear = task.tag not in found and not has_begun(task)
            job.watcher = asyncio.create_task(self._follow(job))
            job.watcher.add_done_callback(self._watcher_ended)

    def _watcher_ended(self, watcher: asyncio.Task[None]) -> None:
        if not watcher.cancelled() and (error := watcher.exception()) is not None:
            self._ended.put_nowait(error)

    async def _follow(self, job: _Job) -> None:
        """Wait for the end of a job that another spawner has started."""
        while True:
            try:
                if job.is_unclear and not await self._has_begun_elsewhere(job):
                    return
                code = await self._end_of(job)
            except OSError as error:  # no descriptor left, a network file system that does not answer, ...
                if job.cancelled and not _is_seen(job):
                    self._end(job.task.tag, None)
                    return
                what = f"{error.strerror}: {job.task.directory}"
                _tell(job, f"nothing can be found out about {job.task.task} for now: {what}")
                await asyncio.sleep(_AGAIN_S)
            else:
                self._end(job.task.tag, code)
                return

    async def _end_of(self, job: _Job) -> int | None:
        """How the job has ended, when it has.

        :raises OSError: nobody can tell now.
        """
        task = job.task
        while (record := read_exit_record(task.directory, task.tag)) and record.exit_code is None:
            if is_elsewhere(record.job):
                host = host_of(record.job)
                _tell(job, f"{task.task} was begun on {host}, and is waited for until it has ended there")
                await asyncio.sleep(_POLL_ELSEWHERE_S)  # its processes cannot be seen from here
                continue
            # In this order: a spawner writes how a job ended before the process disappears.
            spawner_lives = is_spawner(record.job) or is_locked(task)
            if not job.has_ended:  # what it has left in a session of its own is not the job
                job.pid = first_of(processes_of([task.tag]).get(task.tag, ()))
            if job.pid is not None and not job.has_ended:
                await end_of(job.pid)
                job.has_ended = True
            elif spawner_lives:
                await asyncio.sleep(_POLL_S)  # it is just starting the job, or writing how it ended
            else:
                record = read_exit_record(task.directory, task.tag)
                break
        if record is None and job.pid is not None:
            await end_of(job.pid)  # its directory was removed
        code = record.exit_code if record else None
        if code is None:
            # What is left of it would run beside its next attempt.
            for pid in processes_of([task.tag]).get(task.tag, ()):
                signal_process(pid, signal.SIGKILL)
        return code

    async def _has_begun_elsewhere(self, job: _Job) -> bool:
        """Whether another spawner has begun a job; if not, and it is still wanted, ours gets it.

        :raises OSError: nobody can tell yet.
        """
        task = job.task
        if forbid_execution(task.directory, task.tag):
            job.watcher = None
            if job.unwanted:
                self._end(task.tag, None, reason="CANCELLED")
                return False
            exit_record_path(task.directory, task.tag).unlink(missing_ok=True)
            await self._submit_again([task])
            if job.unwanted:
                await self._spawner.drop([task.tag])
            return False
        job.is_unclear = False
        return True

    # ------------------------------------------------------------------ stopping

    async def ended(self) -> AsyncIterator[Ended]:
        """Yield the ends as the spawner tells them."""
        while True:
            end = await self._ended.get()
            if isinstance(end, BaseException):
                raise end
            yield end

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop jobs with everything that they started: SIGTERM to the groups, SIGKILL after ``grace_s``.

        Returns when nothing of them is left. Tags that are not at work are ignored.
        """
        wanted = [job for tag in tags if (job := self._jobs.get(tag))]
        for job in wanted:
            job.unwanted = True
        await self._spawner.drop([job.task.tag for job in wanted if job.watcher is None])
        # (Those that had begun have told their process meanwhile, and those that have ended by themselves
        # how: messages keep their order.)
        jobs = [job for job in wanted if not job.over.is_set()]
        for job in jobs:
            job.cancelled = True
        found = groups_of([job.task.tag for job in wanted])
        await stop_groups(found | {job.pid for job in jobs if job.pid is not None}, grace_s)
        # A job can start something in a session of its own when it is told to end.
        for _ in range(_LAST_LOOKS):
            if not (rest := living(groups_of([job.task.tag for job in wanted]))):
                break
            await stop_groups(rest, 0)
        if over := [asyncio.ensure_future(job.over.wait()) for job in jobs]:
            try:
                await asyncio.wait(over, timeout=_LAST_WORDS_S)
            finally:
                for waiting in over:
                    waiting.cancel()

    async def close(self) -> None:
        """Stop following; the jobs go on, and another generator can adopt them."""
        watchers = [job.watcher for job in self._jobs.values() if job.watcher]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        idle = all(job.watcher for job in self._jobs.values())
        self._jobs.clear()
        await self._spawner.close(idle=idle)


def _is_seen(job: _Job) -> bool:
    with suppress(OSError):
        return bool(processes_of([job.task.tag]))
    return True


def _tell(job: _Job, what: str) -> None:
    if job.told != what:
        job.told = what
        log.warning("%s", what)


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``bash``."""
    return {"bash": BashGenerator}
