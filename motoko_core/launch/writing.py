"""Writing into the studies' databases, whatever their servers do meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

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
    """Transacts; while a server does not answer, it tries again until the launcher is to stop.

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
                await asyncio.sleep(delay_s)
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
