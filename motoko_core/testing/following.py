"""A generator at work in a test, and the jobs that it gets."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted

_numbers = itertools.count(1)
_POLL_S = 0.02


def make_task(root: Path, script: str, **changes: Any) -> LaunchTask:
    """Write a run directory, as the launcher does; answer what the generator gets."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "tag": f"motoko-conformance-{number}-{uuid.uuid4().hex[:12]}",
        "task": f"conformance.{number}",
        "run_id": number,
        "run_name": "conformance",
        "directory": root / f"run-{number}",
        "script": "launch.sh",
        **changes,
    }
    task = LaunchTask(**values)
    task.directory.mkdir(parents=True, exist_ok=True)
    path = task.directory / task.script
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o777)
    return task


async def until(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    """Wait for something outside: a file, a process.

    :raises AssertionError: it did not happen in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, f"in {timeout_s:g} s: not {what}"
        await asyncio.sleep(_POLL_S)


def is_good(end: Ended) -> bool:
    """Whether it says that the job has done its work."""
    return end.exit_code == 0 and end.reason is None


class Following:
    """A generator, and what it tells: an asynchronous context manager.

    At the end of the block the jobs that still run are cancelled, unless :meth:`leave` was called.
    """

    def __init__(self, generator: JobGenerator, timeout_s: float) -> None:
        self.generator = generator
        self._timeout_s = timeout_s
        self._followed: set[str] = set()
        self._ends: dict[str, Ended] = {}
        self._twice: list[Ended] = []
        self._news = asyncio.Event()
        self._is_left = False

    async def __aenter__(self) -> Following:
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            open_ones = self._followed - self._ends.keys()
            if open_ones and not self._is_left:
                await self.generator.cancel(sorted(open_ones), grace_s=0.1)
                await self._told(open_ones)
        finally:
            if not self._listener.done():
                self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
            await self.generator.close()
        if error is None:
            assert not self._twice, f"told twice: {self._twice}"

    def leave(self) -> None:
        """Let the jobs go on when the block ends."""
        self._is_left = True

    async def _listen(self) -> None:
        async for end in self.generator.ended():
            if end.tag in self._ends:
                self._twice.append(end)
            self._ends.setdefault(end.tag, end)
            self._news.set()

    async def submit(self, tasks: Sequence[LaunchTask]) -> dict[str, Submitted]:
        """Submit as a launcher does: no more at once than there is room for. Answers by tag."""
        waiting = list(tasks)
        answers: dict[str, Submitted] = {}
        while waiting:
            room = self.generator.room()
            if room == 0:
                known = len(self._ends)
                await self._until(lambda known=known: len(self._ends) > known, "no job ends")  # type: ignore[misc]
                continue
            count = len(waiting) if room is None else room
            batch, waiting = waiting[:count], waiting[count:]
            given = await self.generator.submit(batch)
            assert [answer.tag for answer in given] == [task.tag for task in batch]
            for answer in given:
                assert (answer.handle is None) == (answer.error is not None), answer
                if answer.handle is not None:
                    self._followed.add(answer.tag)
                    json.dumps(answer.handle)
                answers[answer.tag] = answer
        return answers

    async def adopt(self, given: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Have the generator adopt jobs of another one."""
        followed = set(await self.generator.adopt(given))
        assert followed <= {task.tag for task, _ in given}
        self._followed |= followed
        return followed

    async def ends(self, tasks: Iterable[LaunchTask]) -> list[Ended]:
        """Wait for the ends of jobs that were submitted."""
        wanted = [task.tag for task in tasks]
        await self._told(wanted)
        return [self._ends[tag] for tag in wanted]

    async def known_ends(self, tasks: Sequence[LaunchTask]) -> dict[str, Ended]:
        """Wait for the ends, and answer by tag those that were told in time."""
        with suppress(AssertionError):
            await self._told([task.tag for task in tasks])
        return {task.tag: self._ends[task.tag] for task in tasks if task.tag in self._ends}

    async def end(self, task: LaunchTask) -> Ended:
        """Wait for the end of one job."""
        (end,) = await self.ends([task])
        return end

    async def _told(self, tags: Iterable[str]) -> None:
        missing = set(tags)

        def are_told() -> bool:
            missing.difference_update(self._ends)
            return not missing

        try:
            await self._until(are_told, "jobs have not ended")
        except AssertionError as error:
            raise AssertionError(f"{error}; missing: {missing}") from None

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async def look() -> None:
            while not condition():
                self._news.clear()
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait({news, self._listener}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if self._listener.done():
                    self._listener.result()
                    raise AssertionError("the generator stopped telling which jobs end")

        try:
            await asyncio.wait_for(look(), self._timeout_s)
        except asyncio.TimeoutError:
            raise AssertionError(f"after {self._timeout_s:g} s, {what}; ended: {self._ends}") from None


def is_alive(pid: int) -> bool:
    """Whether a process is there that is no zombie."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] != "Z"
