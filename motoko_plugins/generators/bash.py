"""The bash generator: runs are processes on this machine, side by side as far as there are slots.

How a run ends is known in three ways, so that it survives this process: the wait status of a child, the
exit code file that the wrapper leaves in the run directory, and the absence of both (LOST).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import psutil

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_plugins.generators._bash_options import BashOptions
from motoko_plugins.generators._processes import TITLE, is_job, living, signal_group, wrappers

log = logging.getLogger(__name__)

#: Written by the wrapper, in the run directory: see :func:`read_exit_code`.
EXIT_CODE_FILE = ".motoko-exit-code"

# - The traps let the wrapper outlive a signal to the whole group; the script gets the default actions.
# - The file becomes the wrapper's own standard error: when the script is killed, the shell says so there
#   ("Killed"), which is all that tells `kill -9` from `exit 137`. The subshell is for dash, which would
#   print it on the script's standard error otherwise; `exec` makes it cost no process.
# - One short write needs no `mv` to be atomic, and a process for `mv` costs a third of the throughput.
WRAPPER = f"""\
trap : HUP INT QUIT TERM USR1 USR2
cd "$3" || exit 126
exec 3>&2 2>{EXIT_CODE_FILE}
(exec bash "./$2" 2>&3 3>&-)
code=$?
printf '%s %s\\n' "$code" "$1" >&2
exit "$code"
"""

# What Python or a shell's `nohup` ignores would be ignored by the job too, without remedy in a script.
_DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)
_POLL_S = 0.02


def read_exit_code(directory: Path, tag: str) -> int | None:
    """Return how the job ``tag`` ended, as its wrapper wrote it down; None if it did not.

    The code is what the script gave to its shell, or ``-n`` if the script's own shell was killed by signal
    n. As in every shell, a script whose *last command* was killed by signal n exits with 128 + n. (For
    SIGINT and SIGPIPE shells do not say which of the two it was: 130 and 141.)
    """
    try:
        text = (directory / EXIT_CODE_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The tag keeps an earlier attempt's end from being taken for this one's.
    *messages, last = text.removesuffix("\n").split("\n")
    code, _, written_tag = last.partition(" ")
    if not text.endswith("\n") or written_tag != tag or not code.isdecimal():
        return None
    return 128 - int(code) if messages and int(code) > 128 else int(code)


def job_environment() -> dict[str, str]:
    """Return the jobs' environment: ours, where ``python`` and ``canYouDigIt`` are those beside Motoko."""
    environment = dict(os.environ)
    path = environment.get("PATH", os.defpath)
    programs = str(Path(sys.executable).parent) if sys.executable else ""
    if programs and programs not in path.split(os.pathsep):
        environment["PATH"] = os.pathsep.join([programs, path])
    return environment


def _inheritable() -> list[int]:
    """Return what a job must not get: a pipe to our own parent, kept open, makes that wait for the job."""
    found = []
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the descriptor that listed them
            if int(path.name) > 2 and os.get_inheritable(int(path.name)):
                found.append(int(path.name))
    return found


@attrs.define(eq=False)
class _Job:
    task: LaunchTask
    pid: int
    pidfd: int | None = None
    cancelled: bool = False


class BashGenerator(JobGenerator):
    """Runs jobs as processes, each in a session of its own, which go on when the launcher ends.

    More may be submitted than there is room for: what does not fit waits here, in the order of
    submission, so that a run that asks for many processors gets its turn. A run that asks for more than
    ``slots`` runs alone.
    """

    Options = BashOptions

    def __init__(self, options: BashOptions | None = None) -> None:
        super().__init__(options or BashOptions())
        self._slots: int = self.options.slots
        self._environment = job_environment()
        self._closed_in_jobs = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()]
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[LaunchTask] = deque()
        self._ended: asyncio.Queue[Ended] = asyncio.Queue()

    def room(self) -> int:
        """Free processors; 0 while something waits, so that nothing overtakes it."""
        return 0 if self._waiting else max(0, self._slots - self._used())

    def _cost(self, task: LaunchTask) -> int:
        return min(max(1, task.nproc), self._slots)

    def _used(self) -> int:
        return sum(self._cost(job.task) for job in self._jobs.values())

    def _fits(self, task: LaunchTask) -> bool:
        return self._used() + self._cost(task) <= self._slots

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Start the jobs that fit and keep the others in a queue; their handle has no pid yet."""
        answers = []
        for task in batch:
            if self._waiting or not self._fits(task):
                self._waiting.append(task)
                answers.append(Submitted(tag=task.tag, handle={"pid": None, "start": None}))
                continue
            try:
                handle = self._start(task)
            except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
                answers.append(Submitted(tag=task.tag, error=f"cannot start {task.task}: {error}"))
            else:
                answers.append(Submitted(tag=task.tag, handle=handle))
            await asyncio.sleep(0)  # a spawn takes 0.4 ms; let others have their turn
        return answers

    def _start(self, task: LaunchTask) -> dict[str, Any]:
        """Spawn the wrapper, in the loop's thread: Python holds its lock meanwhile, so threads gain nothing.

        :raises OSError: no process, or no file for its output.
        """
        (task.directory / EXIT_CODE_FILE).unlink(missing_ok=True)
        output = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions: list[Any] = [*self._closed_in_jobs, (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        if not self.options.stdout:
            actions += [
                (os.POSIX_SPAWN_OPEN, 1, task.stdout, output, 0o666),
                (os.POSIX_SPAWN_OPEN, 2, task.stderr, output, 0o666),
            ]
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", WRAPPER, TITLE, task.tag, task.script, str(task.directory)],
            self._environment,
            file_actions=actions,
            setsid=True,
            setsigdef=_DEFAULT_SIGNALS,
            setsigmask=(),
        )
        self._follow(task, pid)
        start = None
        with suppress(psutil.Error):
            start = psutil.Process(pid).create_time()
        return {"pid": pid, "start": start}

    def _follow(self, task: LaunchTask, pid: int) -> None:
        """Have :meth:`_on_end` called when the process ends, whether it is a child or not."""
        job = self._jobs[task.tag] = _Job(task=task, pid=pid)
        loop = asyncio.get_running_loop()
        try:
            job.pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, or older than 5.3, or no descriptor left
            threading.Thread(target=_wait, args=(pid, loop, self._on_end, job), daemon=True).start()
        else:
            loop.add_reader(job.pidfd, self._on_end, job)

    def _on_end(self, job: _Job) -> None:
        if self._jobs.get(job.task.tag) is not job:  # closed meanwhile
            return
        del self._jobs[job.task.tag]
        self._unwatch(job)
        code = read_exit_code(job.task.directory, job.task.tag)
        if code is None:
            # The wrapper was killed. What is left of the job would run beside its next attempt; and the
            # group must be signalled before the wait below sets its number free.
            signal_group(job.pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # an adopted job is nobody's child here
            pid, status = os.waitpid(job.pid, os.WNOHANG)
            if pid and code is None:
                code = os.waitstatus_to_exitcode(status)
        self._ended.put_nowait(_ended(job.task.tag, code, cancelled=job.cancelled))
        self._start_waiting()

    def _unwatch(self, job: _Job) -> None:
        if job.pidfd is not None:
            asyncio.get_running_loop().remove_reader(job.pidfd)
            os.close(job.pidfd)

    def _start_waiting(self) -> None:
        while self._waiting and self._fits(self._waiting[0]):
            task = self._waiting.popleft()
            try:
                self._start(task)
            except (OSError, ValueError) as error:
                log.warning("cannot start %s: %s", task.task, error)
                self._ended.put_nowait(Ended(tag=task.tag, exit_code=None, reason="LOST"))

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Follow the jobs that have begun."""
        return {task.tag for task, handle in batch if self._adopt(task, handle)}

    def _adopt(self, task: LaunchTask, handle: Mapping[str, Any] | None) -> bool:
        """Follow a job of an earlier launcher: alive, found by its handle or its tag, or ended since.

        A handle without pid is no obstacle (the launcher died before it could write it down): the
        wrapper's command line carries the tag.
        """
        if task.tag in self._jobs:
            return True
        handle = handle or {}
        pid = handle.get("pid") or self._wrappers.get(task.tag)
        if pid is not None and is_job(pid, handle.get("start"), task.tag):
            self._follow(task, pid)
            return True
        code = read_exit_code(task.directory, task.tag)
        if code is None and not handle.get("pid"):
            return False
        self._ended.put_nowait(_ended(task.tag, code))
        return True

    @cached_property
    def _wrappers(self) -> dict[str, int]:
        """Tag -> pid of the jobs there at the first question; those of earlier launchers all were."""
        return wrappers()

    async def ended(self) -> AsyncIterator[Ended]:
        """Yield the ends, without delay: nothing is polled."""
        while True:
            yield await self._ended.get()

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop jobs with everything that they started: SIGTERM to the group, SIGKILL after ``grace_s``.

        Returns when nothing of them is left, or after SIGKILL. Tags that are not at work are ignored.
        """
        wanted = set(tags)
        for task in [task for task in self._waiting if task.tag in wanted]:
            self._waiting.remove(task)
            self._ended.put_nowait(_ended(task.tag, None, cancelled=True))
        jobs = [job for tag, job in self._jobs.items() if tag in wanted]
        for job in jobs:
            job.cancelled = True
        groups = {job.pid for job in jobs if signal_group(job.pid, signal.SIGTERM)}
        self._start_waiting()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        # A group can outlive its wrapper (a program that tidies up after its shell has gone), and no event
        # announces its end, hence the noqa. While it has a member, its number is not given to another.
        while (groups := living(groups)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        for group in groups:
            signal_group(group, signal.SIGKILL)

    async def close(self) -> None:
        """Stop following; the jobs go on, and another generator can adopt them."""
        self._waiting.clear()
        for job in self._jobs.values():
            self._unwatch(job)
        self._jobs.clear()


def _ended(tag: str, code: int | None, *, cancelled: bool = False) -> Ended:
    """Return the end of a job; the reason of a positive code is left to the launcher."""
    if cancelled:
        return Ended(tag=tag, exit_code=code, reason="CANCELLED")
    if code is None:
        return Ended(tag=tag, exit_code=None, reason="LOST")
    return Ended(tag=tag, exit_code=code, reason="SIGNAL" if code < 0 else None)


def _wait(pid: int, loop: asyncio.AbstractEventLoop, on_end: Any, job: _Job) -> None:
    """Wait in a thread, where the kernel has no pidfd; a child is left for :meth:`_on_end` to reap."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(_POLL_S)
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(on_end, job)


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``bash``."""
    return {"bash": BashGenerator}
