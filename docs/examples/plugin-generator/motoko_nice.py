"""Runs tasks on this machine under ``nice``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import (
    EXECUTE,
    Ended,
    JobGenerator,
    LaunchTask,
    Submitted,
    forbid_execution,
    read_exit_record,
)

#: The traps let this shell outlive a signal to the whole group; the script gets the default actions.
JOB = f'{EXECUTE}\ntrap : HUP INT TERM\nmotoko_execute "$@" "$HOSTNAME:$$"\n'


@attrs.frozen(kw_only=True)
class NiceOptions:
    """``nice_options`` of motoko.yaml.

    :param niceness: 0 to 19; the more, the nicer.
    :param slots: tasks side by side.
    :param poll_interval_s: how often the run directories are looked at; seconds.
    """

    niceness: int = attrs.field(default=10)
    slots: int = 1
    poll_interval_s: float = 0.5

    @niceness.validator
    def _check(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value not in range(20):
            raise ConfigError(f"niceness = {value!r} is not a number from 0 to 19")

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> NiceOptions:
        """Make options of the list form: none are understood but the empty one."""
        if strings:
            raise ConfigError(f"unknown option {strings[0]!r}", hint="Write nice_options: {niceness: 19}")
        return cls()


class NiceGenerator(JobGenerator):
    """Each job is a process group, which goes on when the launcher ends."""

    Options = NiceOptions
    on_this_machine = True

    def __init__(self, options: NiceOptions) -> None:
        super().__init__(options)
        programs = str(Path(sys.executable).parent)  # jobs find `python` there
        self._environment = {**os.environ, "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._groups: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._ended: asyncio.Queue[Ended] = asyncio.Queue()

    def room(self) -> int:
        return max(0, self.options.slots - len(self._jobs))

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        return [await self._submit(task) for task in batch]

    async def _submit(self, task: LaunchTask) -> Submitted:
        names = [task.tag, str(task.directory), task.script, str(task.stdout), str(task.stderr)]
        words = ["nice", "-n", str(self.options.niceness), "bash", "-c", JOB, "motoko", *names]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return Submitted(tag=task.tag, error=f"cannot start {task.task}: {error}")
        self._groups[task.tag] = process.pid
        self._jobs[task.tag] = asyncio.create_task(self._follow(task, process))
        return Submitted(tag=task.tag, handle={})

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        begun = {task.tag for task, _ in batch if not forbid_execution(task.directory, task.tag)}
        for task, _ in batch:
            if task.tag in begun and task.tag not in self._jobs:
                self._lives(task)  # finds its processes
                self._jobs[task.tag] = asyncio.create_task(self._follow(task))
        return begun

    async def _follow(self, task: LaunchTask, process: asyncio.subprocess.Process | None = None) -> None:
        while True:
            # In this order: the record is there before the process is gone.
            with suppress(OSError):  # the run directory may be out of reach for a while
                lives = process.returncode is None if process else self._lives(task)
                record = read_exit_record(task.directory, task.tag)
                code = record.exit_code if record else None
                if code is not None or not lives:
                    break
            await asyncio.sleep(self.options.poll_interval_s)
        if process and code is not None:
            await process.wait()  # all that is left to it is to exit
        reason = "CANCELLED" if task.tag in self._cancelled else None
        if reason is None and code is None:
            # A job that could not even begin has no record.
            reason = "LOST" if record or not process else "SUBMIT"
        elif reason is None and code is not None and code < 0:
            reason = "SIGNAL"
        self._forget(task.tag)
        self._ended.put_nowait(Ended(tag=task.tag, exit_code=code, reason=reason))

    def _lives(self, task: LaunchTask) -> bool:
        """Whether the processes of a job of another generator are there."""
        record = read_exit_record(task.directory, task.tag)
        host, _, group = (record.job if record else "").rpartition(":")
        if host != socket.gethostname() or not group.isdecimal():
            return False
        self._groups[task.tag] = int(group)
        return _signal(int(group), 0)

    def _forget(self, tag: str) -> None:
        self._jobs.pop(tag, None)
        self._groups.pop(tag, None)
        self._cancelled.discard(tag)

    async def ended(self) -> AsyncIterator[Ended]:
        while True:
            yield await self._ended.get()

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        jobs = [self._jobs[tag] for tag in tags if tag in self._jobs]
        groups = [self._groups[tag] for tag in tags if tag in self._groups]
        self._cancelled.update(tag for tag in tags if tag in self._jobs)
        for group in groups:
            _signal(group, signal.SIGTERM)
        if jobs:
            await asyncio.wait(jobs, timeout=grace_s)
        for group in groups:
            _signal(group, signal.SIGKILL)

    async def close(self) -> None:
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _signal(group: int, number: int) -> bool:
    """Signal a process group; False if it has no member any more."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``nice``."""
    return {"nice": NiceGenerator}
