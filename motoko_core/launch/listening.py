"""What the generators tell a launcher: which of its jobs have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator
from motoko_core.launch import endings
from motoko_core.launch.service import InHand

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")


class Listeners:
    """Listen to generators, and keep the ends that they tell until somebody takes them to write them down.

    :param in_hand: the executions that are listened for; those whose ends are taken leave it.
    :param wake: set with each end.
    """

    def __init__(self, in_hand: InHand, wake: asyncio.Event) -> None:
        self._in_hand = in_hand
        self._wake = wake
        self._tasks: dict[JobGenerator, asyncio.Task[None]] = {}
        self._ends: dict[TaskManager, list[Ended]] = {}

    def add(self, generator: JobGenerator) -> None:
        """Listen to a generator too, if that is not done already."""
        if generator not in self._tasks:
            self._tasks[generator] = asyncio.create_task(self._listen(generator))

    async def _listen(self, generator: JobGenerator) -> None:
        async for ended in generator.ended():
            if manager := self._in_hand.manager_of(ended.tag):
                self._ends.setdefault(manager, []).append(ended)
                self._wake.set()

    def check(self) -> None:
        """Raise what a generator has raised.

        :raises MotokoError: one does not tell any more which jobs end.
        """
        for listening in self._tasks.values():
            if listening.done():
                listening.result()
                raise MotokoError("the generator stopped telling which jobs end")

    def tasks(self) -> list[asyncio.Future[Any]]:
        """What is under way as long as the generators tell."""
        return list(self._tasks.values())

    async def close(self) -> None:
        """Close the generators, which nobody listens to any more."""
        for generator in self._tasks:
            await generator.close()

    async def hear(self) -> None:
        """Let the ends that the generators know already arrive."""
        for _ in range(10):  # turns of the loop: the system's notice, the generator's queue, the listener
            await asyncio.sleep(0)

    def count(self) -> int:
        """How many ends nobody has taken yet."""
        return sum(map(len, self._ends.values()))

    def any_but(self, managers: Container[TaskManager]) -> bool:
        """Whether there are ends to be taken, other than of these studies."""
        return any(ends for manager, ends in self._ends.items() if manager not in managers)

    def take(self, manager: TaskManager) -> dict[int, tuple[Ended, str]]:
        """Take the ends of one study's runs, with what is told of a failure; by run id."""
        found, good = {}, []
        for end in self._ends.pop(manager, []):
            job = self._in_hand.remove(end.tag)
            if job is None:
                continue
            task = job[1]
            found[task.run_id] = end, endings.told(end, task)
            said = f": {end.message}" if end.message else ""
            if end.is_good:
                good.append(task.task)
            elif end.again:
                logger.info("%s is launched again%s", task.task, said)
            else:
                logger.info("%s ended: exit code %s %s%s", task.task, end.exit_code, end.reason or "", said)
        if good:
            logger.info("done: %s", ", ".join(good))
        return found

    def take_cancelled(self) -> set[str]:
        """Take the ends of jobs that were cancelled, which say nothing of their runs; answer their tags."""
        cancelled: set[str] = set()
        for manager, ends in self._ends.items():
            cancelled.update(end.tag for end in ends if end.reason == "CANCELLED")
            self._ends[manager] = [end for end in ends if end.reason != "CANCELLED"]
        return cancelled
