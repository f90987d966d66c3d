"""Making sure that the servers answer before anything synchronous is begun.

User code and commits run in the event loop, so that nothing comes between a callback and its commit. A read
from a server that is paused would hold the loop up. So the engine begins nothing while a server is silent;
what is under way goes on. A server that falls silent in the middle of a callback holds the loop up for some
seconds (:mod:`motoko_core.study.patience`); then the callback is undone, and called again from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from motoko_core.study.database import Database
from motoko_core.study.feed import ChangeFeed


class Servers:
    """All servers that user code may turn to, whichever study it is about.

    :param feeds: of the studies.
    :param databases: the studies', and the workflow variables'.
    """

    def __init__(self, feeds: Sequence[ChangeFeed], databases: Sequence[Database]) -> None:
        self._feeds = list(feeds)
        self._databases = list(databases)
        for database in self._databases:
            database.pulse.is_awaited = True

    def release(self) -> None:
        """What comes now is done once: it waits for a silent server, however long."""
        for database in self._databases:
            database.pulse.is_awaited = False

    @property
    def are_ready(self) -> bool:
        """Whether all have answered just now, and no thread holds an index while it reads."""
        return all(database.pulse.is_fresh for database in self._databases) and not any(
            feed.is_reading for feed in self._feeds
        )

    def doubt(self) -> None:
        """Have all asked anew; who has answered has announced what was committed before."""
        for database in self._databases:
            database.pulse.doubt()

    async def ready(self) -> None:
        """Return when they are; at once if they are now."""
        while not self.are_ready:
            await asyncio.gather(
                *(database.pulse.answered() for database in self._databases),
                *(feed.idle() for feed in self._feeds),
            )
