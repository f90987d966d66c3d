"""Running a script of ``points`` in a version's or engine's environment, and ending what it has started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.subjects import Subject

_LINES_OF_ERROR = 15


class PointCut(Exception):
    """A figure took longer than the version's limit."""


class PointFailed(Exception):
    """The script ended with an error; the message is the end of what it wrote."""


async def figures(
    subject: Subject, script: str, directory: Path, *settings: object
) -> AsyncIterator[dict[str, Any]]:
    """Run a script in a process of its own, in a workflow's directory; yield its figures as they come.

    :raises PointCut: the next one took longer than the subject's limit.
    :raises PointFailed: the script failed.
    """
    log = directory.with_name(directory.name + ".log")
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(str(subject.python), "-m", f"points.{script}", *map(str, settings)),
            cwd=directory,  # and not the repository: Python would find `motoko` in it
            env=subject.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        while line := await asyncio.wait_for(process.stdout.readline(), subject.limit_s):
            yield json.loads(line)
        if await asyncio.wait_for(process.wait(), subject.limit_s):
            lines = log.read_text(errors="replace").splitlines()
            raise PointFailed("\n".join(lines[-_LINES_OF_ERROR:]))
    except asyncio.TimeoutError:
        raise PointCut from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def prepare(subject: Subject, script: str, directory: Path, *settings: object) -> None:
    """Run a script that measures nothing."""
    async for _ in figures(subject, script, directory, *settings):
        pass


def end_processes(directory: Path, *, needs_data: bool = False) -> None:
    """End the servers and daemons of the workflows in a directory, whichever version started them.

    :param needs_data: let the servers close their files; that takes two seconds.
    """
    found = [process for process in psutil.process_iter(["name"]) if _is_at_work_in(process, directory)]
    closing = [process for process in found if needs_data and "runzeo" in (process.info["name"] or "")]
    for process in found:  # zdaemon at once, or it would start the server again
        _send(process, signal.SIGTERM if process in closing else signal.SIGKILL)
    _, left = psutil.wait_procs(found, timeout=30)
    for process in left:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=10)


def _is_at_work_in(process: psutil.Process, directory: Path) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return any(str(directory) in word for word in [*process.cmdline(), process.cwd()])
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
