"""Writing into the studies' databases, whatever their servers do meanwhile.

One whose server is silent does not keep the launcher from the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from motoko_core.errors import DatabaseFault
from motoko_core.session import transact
from motoko_core.study.direct_runs import DirectRuns
from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.runs import Runs, SessionRuns

if TYPE_CHECKING:
    from motoko_core.study.pulse import Pulse
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")

T = TypeVar("T")

#: How long a server may be silent when the launcher is to stop.
_GRACE_S = 5.0
#: How long to wait before a server that does not answer is tried again: at first, and at most.
_RECONNECT_S = (0.1, 5.0)


class Writer:
    """Transacts; while a server is silent, it tries again until the launcher is to stop.

    :param stop: set when the launcher is to stop.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._direct: dict[TaskManager, DirectRuns] = {}

    async def write(self, manager: TaskManager, what: str, work: Callable[[Runs], T]) -> T:
        """Have ``work`` read and change runs, in one transaction.

        What ``work`` does may be done already when it is called again: nobody knows what became of a commit
        when the connection was lost.

        :raises ClientDisconnected: the server does not answer, and the launcher is to stop.
        :raises DatabaseFault: the database is damaged, or its disk is full.
        """
        delay_s, longest_s = _RECONNECT_S
        pulse = manager.database.pulse
        while True:
            if not pulse.is_fresh:
                await self._answered(pulse)
            try:
                return self._write(manager, f"launcher of {manager.study}: {what}", work)
            except ClientDisconnected:
                if self._stop.is_set():
                    raise
                pulse.lost()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay_s)
            delay_s = min(longest_s, 2 * delay_s)

    def _write(self, manager: TaskManager, title: str, work: Callable[[Runs], T]) -> T:
        study = manager.database
        if manager not in self._direct:
            self._direct[manager] = DirectRuns(study)
        direct = self._direct[manager]
        try:
            direct.begin()
            result = work(direct)
            direct.commit(title)
        except (Unexpected, ConflictError) as error:
            logger.debug("%s, in a session: %s", title, error)
            return transact(title, lambda: work(SessionRuns(study)))
        return result

    async def _answered(self, pulse: Pulse) -> None:
        """Wait for a server: nothing synchronous is begun while it is silent, or the loop would hang."""
        answering = asyncio.ensure_future(pulse.answered())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await asyncio.wait({answering}, timeout=_GRACE_S)
            if not answering.done():
                raise ClientDisconnected("the server does not answer")
            answering.result()
        finally:
            answering.cancel()
            stopping.cancel()


class Turns:
    """Does something for one study after the other; what takes long, because of a server, goes on by itself.

    :param stop: set when the launcher is to stop.
    :param wake: called when something that took long is done.
    """

    def __init__(self, stop: asyncio.Event, wake: Callable[[], None]) -> None:
        self._stop = stop
        self._wake = wake
        self._under_way: dict[TaskManager, asyncio.Future[bool]] = {}
        #: Studies that could not be written when the launcher was to stop.
        self.given_up: set[TaskManager] = set()

    def __contains__(self, manager: object) -> bool:
        """Whether something is still under way for a study."""
        return manager in self._under_way

    async def take(self, manager: TaskManager, work: Coroutine[Any, Any, bool], patience_s: float) -> bool:
        """Do something for a study for which nothing is under way.

        :param patience_s: how long the other studies wait for it.
        :return: the answer of ``work``; False if that is still under way.
        """
        task = self._under_way[manager] = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=patience_s)
        if task.done():
            return self._result(manager)
        task.add_done_callback(lambda _: self._wake())
        return False

    def take_back(self) -> None:
        """Take back the studies for which all is done.

        :raises Exception: what their work has raised.
        """
        for manager, task in list(self._under_way.items()):
            if task.done():
                self._result(manager)

    async def end(self, timeout_s: float) -> None:
        """Wait for what is under way when the launcher is to stop."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=timeout_s)
            self.take_back()
            for manager in self._under_way:
                self.give_up(manager, "something is still under way")

    def tasks(self) -> list[asyncio.Future[bool]]:
        """What is under way."""
        return list(self._under_way.values())

    def give_up(self, manager: TaskManager, error: object) -> None:
        """Leave a study to the next launcher."""
        self.given_up.add(manager)
        what = "the next launcher finds out how its jobs ended"
        logger.warning("%s cannot be written any more; %s: %s", manager.study, what, error)

    def _result(self, manager: TaskManager) -> bool:
        try:
            return self._under_way.pop(manager).result()
        except (ClientDisconnected, DatabaseFault) as error:
            if not self._stop.is_set():
                raise
            self.give_up(manager, error)
            return False
