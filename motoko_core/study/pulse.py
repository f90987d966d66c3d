"""Whether a database's server answers.

Reading from a paused server blocks. What the event loop does synchronously, user code and commits, is
therefore begun only when the server has given a sign of life a moment ago.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ZEO.Exceptions import ClientDisconnected

from motoko_core.study.threads import in_thread

if TYPE_CHECKING:
    from motoko_core.study.database import Database

logger = logging.getLogger("motoko.study")

#: A sign of life counts for so many seconds. An answer takes 0.2 ms, so asking twice a second costs nothing.
FRESH_S = 0.5
#: A server that takes longer is reported.
_SLOW_S = 2.0
_RETRY_S = 0.2


class Pulse:
    """The signs of life of one server, which may be told of from any thread.

    :param clock: seconds, monotonic.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._last = float("-inf")
        self._asking: asyncio.Future[None] | None = None
        self._reported = False
        #: Whether the server is waited for without blocking, and what was undone because it fell silent is
        #: done again: then no call is to wait for it.
        self.is_awaited = False

    @property
    def is_fresh(self) -> bool:
        """Whether the server has given a sign of life just now."""
        return self._clock() - self._last < FRESH_S

    def heard(self) -> None:
        """The server has given a sign of life."""
        self._last = self._clock()
        if self._reported:
            self._reported = False
            logger.warning("%s answers again", self._database.server.title)

    def doubt(self) -> None:
        """The connection was lost: what was heard of the server does not count any more."""
        self._last = float("-inf")

    def lost(self) -> None:
        """The server does not answer: say so, once."""
        self._last = float("-inf")
        if not self._reported:
            self._reported = True
            server = self._database.server
            where = f"; its log is {server.directory / 'zeo.log'}" if server.is_local else ""
            logger.warning(
                "%s at %s does not answer; what needs it waits, and goes on by itself when it is back%s",
                server.title,
                server.address,
                where,
            )

    async def answered(self) -> None:
        """Return when the server has given a sign of life just now; ask it for one if need be."""
        self.is_awaited = True
        while self._database.is_connected and not self.is_fresh:
            if self._asking is None or self._asking.get_loop() is not asyncio.get_running_loop():
                self._asking = in_thread(self._ask)
                # Who waits for it may be cancelled: then nobody comes to see how it ended.
                self._asking.add_done_callback(lambda future: future.cancelled() or future.exception())
            asking = self._asking
            done, _ = await asyncio.wait({asking}, timeout=_SLOW_S)
            if not done:
                self.lost()
                continue
            if self._asking is asking:
                self._asking = None
            try:
                asking.result()
            except ClientDisconnected:
                self.lost()
                await asyncio.sleep(_RETRY_S)

    def _ask(self) -> None:
        self._database.ping()
        self.heard()
