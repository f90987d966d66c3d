"""The end of a launcher: what generators have told is written, and jobs are stopped if they should be.

A study whose server does not answer is left to the next launcher, and keeps none of the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ZEO.Exceptions import ClientDisconnected

from motoko_core.errors import DatabaseFault
from motoko_core.interfaces import LaunchTask
from motoko_core.launch import endings
from motoko_core.launch.listening import Listeners
from motoko_core.launch.service import InHand
from motoko_core.launch.writing import Turns, Writer
from motoko_core.states import is_active
from motoko_core.study.threads import in_thread

if TYPE_CHECKING:
    from motoko_core.study.feed import ChangeFeed
    from motoko_core.study.runs import Runs
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")

#: How long a script may go on after it has said how its run ended.
_GRACE_S = 5.0


class Shutdown:
    """Brings what a launcher has in hand to an end.

    :param managers: the task managers whose runs it launches.
    :param turns: knows the studies that are given up.
    :param wake: set with each end, and each change of a run.
    """

    def __init__(
        self,
        managers: Sequence[TaskManager],
        in_hand: InHand,
        listeners: Listeners,
        writer: Writer,
        turns: Turns,
        wake: asyncio.Event,
    ) -> None:
        self._managers = managers
        self._in_hand = in_hand
        self._listeners = listeners
        self._writer = writer
        self._turns = turns
        self._wake = wake
        #: Jobs that are stopped here: the generators know which of them ended by themselves.
        self._stopped: set[str] = set()

    async def settle(self) -> None:
        """Write the ends that the generators have told, in one transaction per study."""
        for manager in self._managers:
            if found := self._listeners.take(manager):
                settle = partial(endings.settle, ends=found, has_stopped=self._stopped.__contains__)
                await self._write(manager, "settle", settle)

    async def let_end(self, feeds: Mapping[TaskManager, ChangeFeed]) -> None:
        """Wait for the jobs whose runs are over already: their scripts are about to exit.

        :param feeds: of the studies.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _GRACE_S
        current = [asyncio.ensure_future(_look(manager, feed)) for manager, feed in feeds.items()]
        await asyncio.wait(current, timeout=_GRACE_S)
        for waiting in current:
            waiting.cancel()
        while True:
            self._wake.clear()
            await self.settle()
            over = [task for manager, task in self._in_hand.tasks() if _is_over(manager, task)]
            if not over or loop.time() >= end:
                return
            waker = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait({waker}, timeout=end - loop.time())
            waker.cancel()

    async def stop_jobs(self) -> None:
        """Stop what is at work; the runs wait for the next launcher."""
        if not self._in_hand:
            return
        jobs = self._in_hand.tasks()
        logger.info("stopping %d jobs; their runs wait for the next launcher", len(jobs))
        for manager in self._managers:
            tags = {task.run_id: task.tag for m, task in jobs if m is manager}
            if tags:
                await self._write(manager, "stop", partial(endings.stopping, tags=tags))
        # Nobody would ever know why the jobs of the others ended: the next launcher follows them.
        stop = [task.tag for manager, task in jobs if manager not in self._turns.given_up]
        self._stopped.update(stop)
        for generator, some in self._in_hand.by_generator(stop).items():
            await generator.cancel(some)
        await self._listeners.hear()
        # One that ended by itself at the last moment is not to be executed again.
        stopped = self._listeners.take_cancelled()
        await self.settle()
        for manager in self._managers:
            await self._hand_back(manager, [t for m, t in self._in_hand.tasks() if m is manager], stopped)

    async def _hand_back(
        self, manager: TaskManager, tasks: Sequence[LaunchTask], stopped: Container[str]
    ) -> None:
        """Have the next launcher execute runs again: at once those whose jobs were stopped, and the others
        when their jobs, which have been told to stop, have ended."""
        if not tasks:
            return
        over = {task.run_id: task.tag for task in tasks if task.tag in stopped}
        ending = {task.run_id: task.tag for task in tasks if task.tag not in stopped}

        def work(runs: Runs) -> None:
            endings.hand_back(runs, over)
            endings.reset(runs, ending)

        await self._write(manager, "hand back", work)
        for task in tasks:
            self._in_hand.remove(task.tag)

    async def _write(self, manager: TaskManager, what: str, work: Callable[[Runs], None]) -> None:
        if manager in self._turns.given_up:
            return
        try:
            await self._writer.write(manager, what, work)
        except (ClientDisconnected, DatabaseFault) as error:
            self._turns.give_up(manager, error)


async def _look(manager: TaskManager, feed: ChangeFeed) -> None:
    """Have all in the index that is in the database now: its news may be under way when whoever has got them
    before stops the launcher. A server's answer comes after them."""
    with suppress(ClientDisconnected):
        await in_thread(manager.database.ping)
    await feed.current()


def _is_over(manager: TaskManager, task: LaunchTask) -> bool:
    """Whether the run of a job has got its last state."""
    return not is_active(manager.database.index.rows.value(task.run_id, "state"))
