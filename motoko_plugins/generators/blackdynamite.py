"""Generators made of BlackDynamite's coats: ``sge``, and any coat that a user has written.

The coat writes the job script and submits it, in a process of its own. How a run ends is known from its exit
record, which the job script keeps, and, where a command tells it, from the scheduler's list of jobs.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import attrs
import psutil

from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import (
    Ended,
    ExitRecord,
    JobGenerator,
    LaunchTask,
    Submitted,
    read_exit_record,
)
from motoko_plugins.generators import _coat_runner
from motoko_plugins.generators._coats import (
    KNOWN,
    CoatOptions,
    Known,
    find_coat,
    request,
    submitted_job,
)
from motoko_plugins.generators._commands import Outcome, execute
from motoko_plugins.generators._environment import job_environment
from motoko_plugins.generators._machine import is_elsewhere, may_be
from motoko_plugins.generators._processes import processes_of, signal_process
from motoko_plugins.generators._records import forbid, has_begun

log = logging.getLogger(__name__)

_POLL_S = 0.05
#: How long the system may take to end what is killed.
_KILL_S = 5.0
#: How long the commands that list and cancel jobs may take, and how many are executed at once.
_COMMAND_S = 60.0
_COMMANDS = 8


@attrs.define(eq=False)
class _Job:
    """A job that is followed.

    :param job: what the scheduler calls it; empty: nobody knows.
    :param is_launching: the coat is at work.
    :param has_begun: somebody has made its record, and perhaps not written into it.
    :param gone_since: when it was first missed; None: it was there.
    """

    task: LaunchTask
    job: str = ""
    is_launching: bool = False
    has_begun: bool = False
    is_cancelled: bool = False
    gone_since: float | None = None


class CoatGenerator(JobGenerator):
    """Submits runs with one of BlackDynamite's coats.

    :raises ConfigError: the scheduler's program is not on the PATH.
    """

    Options = CoatOptions
    #: The coat's name without ``Coat``, and its module.
    coat: ClassVar[str]
    module: ClassVar[Path]
    known: ClassVar[Known]

    def __init__(self, options: CoatOptions | None = None) -> None:
        super().__init__(options or CoatOptions())
        self._environment = job_environment()
        program = self.known.submit_program
        if program and shutil.which(program, path=self._environment["PATH"]) is None:
            raise ConfigError(
                f"the program {program!r}, which submits jobs, is not on the PATH",
                hint="Start Motoko where jobs are submitted (a login node; `module load` may be needed), or "
                "choose another generator: `generator: bash` in motoko.yaml, or --generator bash.",
            )
        given: CoatOptions = self.options
        self._cancel_command = self.known.cancel if given.cancel is None else given.cancel
        self._status_command = self.known.status if given.status is None else given.status
        self._jobs: dict[str, _Job] = {}
        self._ended: asyncio.Queue[Ended | BaseException] = asyncio.Queue()
        self._work: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._next_status = 0.0
        self._turns = asyncio.Semaphore(_COMMANDS)

    # ------------------------------------------------------------------ submitting

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Hand the runs to the coat, which takes its time; what it cannot submit ends with SUBMIT."""
        answers, requests = [], {}
        for task in batch:
            try:
                wanted = request(self.coat, task, task.settings or self.options, self.known)
                requests[task.tag] = json.dumps(wanted, default=str)
            except Exception as error:  # noqa: BLE001 - scripts and users may store anything
                answers.append(Submitted(tag=task.tag, error=f"cannot submit {task.task}: {error}"))
            else:
                self._jobs[task.tag] = _Job(task, is_launching=True)
                answers.append(Submitted(tag=task.tag, handle={}))
        if requests:
            self._begin(self._launch(requests))
            self._watch()
        return answers

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)
        return task

    def _work_ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._ended.put_nowait(error)

    async def _launch(self, requests: dict[str, str]) -> None:
        why = "the coat's process died"
        try:
            await self._talk(requests)
        except (OSError, ValueError) as error:  # the system starts no process, ...
            why = f"the coat's process cannot be started or understood: {error}"
        for tag in requests:
            self._hear({"tag": tag, "error": why})

    async def _talk(self, requests: dict[str, str]) -> None:
        """Hand requests over, and take out those that are answered.

        :raises OSError: the coat's process cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(_coat_runner.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        job = {
            "coat": str(self.module),
            "parent": os.getpid(),
            "sys_path": sys.path,
            "params": {"user": getpass.getuser()},
            "at_once": self.options.at_once,
        }
        try:
            process.stdin.write("\n".join([json.dumps(job, default=str), *requests.values()]).encode())
            process.stdin.close()
            async for line in process.stdout:
                answer = json.loads(line)
                requests.pop(answer["tag"], None)
                self._hear(answer)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _hear(self, answer: Mapping[str, Any]) -> None:
        job = self._jobs.get(answer["tag"])
        if job is None:
            return
        job.is_launching = False
        job.job = str(answer.get("job") or "")
        # A command that fails does not mean that nothing was submitted; the record makes it so.
        if "error" in answer and forbid(job.task):
            self._end(job, None, "SUBMIT", f"the coat {self.module.stem} failed: {answer['error']}")

    # ------------------------------------------------------------------ following

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Follow what has begun or waits in a queue; the others are kept from beginning."""
        for task, _ in batch:
            if task.tag in self._jobs:
                continue
            job = submitted_job(task)
            in_queue = bool(job) and has_begun(task) is False
            if in_queue or not forbid(task):
                self._jobs[task.tag] = _Job(task, job=job or "", has_begun=not in_queue)
        self._watch()
        return {task.tag for task, _ in batch if task.tag in self._jobs}

    def _watch(self) -> None:
        if self._jobs and (self._watcher is None or self._watcher.done()):
            self._watcher = self._begin(self._follow())

    async def _follow(self) -> None:
        told = ""
        while self._jobs:
            jobs = list(self._jobs.values())
            records = await asyncio.to_thread(_read, jobs)
            for job in jobs:
                if (record := records.get(job.task.tag)) and record.exit_code is not None:
                    code = record.exit_code
                    self._end(job, code, "SIGNAL" if code < 0 else None)
            try:
                await self._miss(records)
            except OSError as error:  # no descriptor left, ...
                if told != (told := str(error)):
                    log.warning("nothing can be found out about jobs that are gone for now: %s", error)
            await asyncio.sleep(self.options.poll_interval_s)

    async def _miss(self, records: Mapping[str, ExitRecord | None]) -> None:
        """Find the jobs that are gone without having said how they ended."""
        now = time.monotonic()
        jobs = [job for job in self._jobs.values() if job.task.tag in records and not job.is_launching]
        if not self._status_command:
            gone = {job for job in jobs if _is_dead(records[job.task.tag], job.has_begun)}
            if gone:
                left = await asyncio.to_thread(processes_of, [job.task.tag for job in gone])
                gone = {job for job in gone if job.task.tag not in left}
        elif now >= self._next_status:
            self._next_status = now + self.options.status_interval_s
            known = await self._status([job.job for job in jobs if job.job])
            if known is None:
                return
            gone = {job for job in jobs if job.job and job.job not in known}
        else:
            gone = {job for job in jobs if job.gone_since is not None}
        for job in jobs:
            job.gone_since = (job.gone_since or now) if job in gone else None
            # What a machine far away has written is seen here some time later.
            if job.gone_since is not None and now - job.gone_since >= self._patience(job):
                self._end(job, None, "LOST", "its job is gone, and nobody has seen how it ended")

    def _patience(self, job: _Job) -> float:
        own: float = self.options.lost_after_s
        return min(own, 2 * self.options.poll_interval_s) if job.is_cancelled else own

    async def _status(self, jobs: Sequence[str]) -> set[str] | None:
        """Which of these jobs the scheduler knows; None if it does not answer."""
        command = self._status_command
        if not jobs:
            return set()
        if "{job}" in command:
            words = [command.replace("{job}", shlex.quote(job)) for job in jobs]
            outcomes = await asyncio.gather(*(self._execute(word) for word in words))
            if silent := [outcome for outcome in outcomes if outcome.code is None]:
                log.warning("%s", silent[0])
            # (Of one whose command did not start or end nobody can tell.)
            return {job for job, outcome in zip(jobs, outcomes, strict=True) if outcome.code in (0, None)}
        outcome = await self._execute(command)
        if outcome.code != 0:
            log.warning("%s", outcome)
            return None
        seen = set(re.findall(r"[\w.-]+", outcome.output))
        return {job for job in jobs if job in seen or job.partition(".")[0] in seen}

    async def _execute(self, command: str) -> Outcome:
        async with self._turns:
            words = ["/bin/sh", "-c", command]
            return await execute(words, environment=self._environment, timeout_s=_COMMAND_S)

    def _end(self, job: _Job, code: int | None, reason: str | None, message: str = "") -> None:
        if self._jobs.pop(job.task.tag, None) is None:
            return
        if job.is_cancelled:
            reason, message = "CANCELLED", ""
        self._ended.put_nowait(Ended(tag=job.task.tag, exit_code=code, reason=reason, message=message))

    async def ended(self) -> AsyncIterator[Ended]:
        """Yield the ends as they are found."""
        while True:
            end = await self._ended.get()
            if isinstance(end, BaseException):
                raise end
            yield end

    # ------------------------------------------------------------------ stopping

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop jobs: those that have not begun never do; the others with the scheduler's command, or here."""
        jobs = [job for tag in tags if (job := self._jobs.get(tag))]
        for job in jobs:
            job.is_cancelled = True
            if forbid(job.task):
                self._end(job, None, "CANCELLED")
        if self._cancel_command:
            await self._cancel([job.job for job in jobs if job.job])
            jobs = [job for job in jobs if not job.job]
        await self._stop_here([job.task.tag for job in jobs if job.task.tag in self._jobs], grace_s)

    async def _cancel(self, jobs: Sequence[str]) -> None:
        if "{jobs}" in self._cancel_command:
            commands = [self._cancel_command.replace("{jobs}", shlex.join(jobs))] if jobs else []
        else:
            commands = [self._cancel_command.replace("{job}", shlex.quote(job)) for job in jobs]
        for command in commands:
            outcome = await self._execute(command)
            if outcome.code != 0:
                log.warning("%s", outcome)

    async def _stop_here(self, tags: Sequence[str], grace_s: float) -> None:
        """Stop the jobs' processes on this machine."""
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_S)):
            found = await asyncio.to_thread(processes_of, tags)
            for pid in {pid for pids in found.values() for pid in pids}:
                signal_process(pid, number)
            deadline = time.monotonic() + patience_s
            while found and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_S)
                found = await asyncio.to_thread(processes_of, tags)

    async def close(self) -> None:
        """Stop following; what was submitted goes on, and what was not is not."""
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._jobs.clear()


def _read(jobs: Sequence[_Job]) -> dict[str, ExitRecord | None]:
    """Read their records; of a job whose record cannot be read now nothing is said, while it is wanted."""
    found: dict[str, ExitRecord | None] = {}
    for job in jobs:
        task = job.task
        try:
            found[task.tag] = read_exit_record(task.directory, task.tag)
        except OSError as error:
            log.debug("the run directory of %s is out of reach: %s", task.task, error)
            if job.is_cancelled:
                found[task.tag] = None
    return found


def _is_dead(record: ExitRecord | None, has_begun: bool) -> bool:
    """Whether a job that said where it runs runs here no more, or came to nothing before it could say so."""
    if record is None:
        return has_begun
    pid = record.job.rpartition(":")[2]
    if is_elsewhere(record.job) or not pid.isdecimal():
        return False
    return not psutil.pid_exists(int(pid)) or not may_be(record.job, int(pid))


@cache
def _make(name: str, module: Path) -> type[CoatGenerator]:
    known = KNOWN.get(name, Known())
    attributes = {"coat": name, "module": module, "known": known, "launched_state": known.state}
    return type(f"{name.capitalize()}CoatGenerator", (CoatGenerator,), attributes)


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``sge``."""
    return {name: _make(name, path) for name in KNOWN if (path := find_coat(name, None))}


@hookimpl
def motoko_generator_from_name(name: str, directory: Path) -> type[JobGenerator] | None:
    """Find the coat ``<name>Coat.py`` or ``<name>.py`` beside motoko.yaml or on PYTHONPATH."""
    path = find_coat(name, directory)
    return _make(name, path) if path else None
