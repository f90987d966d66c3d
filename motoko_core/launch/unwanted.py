"""Jobs in hand that nobody wants any more: their runs are to be cancelled, or were reset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from motoko_core.entries import CANCEL, tag_of
from motoko_core.launch.service import InHand
from motoko_core.states import CREATED
from motoko_core.study.changes import Batch

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")

#: When it is tried again to stop jobs, if that has failed.
_AGAIN_S = 10.0


class Unwanted:
    """Has such jobs stopped, while the others go on: they may take their time to end.

    :param in_hand: the executions, with their generators.
    :param look_again: called when jobs are to be stopped that could not be stopped before; it has
        :meth:`look` called with everything.
    """

    def __init__(self, in_hand: InHand, look_again: Callable[[], None]) -> None:
        self._in_hand = in_hand
        self._look_again = look_again
        #: Tags of the executions whose generators were asked to stop them.
        self._asked: set[str] = set()
        self._under_way: set[asyncio.Future[None]] = set()

    def look(self, manager: TaskManager, batch: Batch) -> None:
        """See which of a study's jobs are unwanted now that runs have changed."""
        tags, rows = self._in_hand.tags(manager), manager.database.index.rows
        run_ids = list(tags) if batch.rescan else [c.run_id for c in batch if c.run_id in tags]
        marked, reset = set(), set()
        for run_id in run_ids:
            row, tag = rows.get(run_id), tags[run_id]
            if row is None:
                continue
            if row.get(CANCEL) == tag:
                marked.add(tag)
            # (The tag: the index may have the row of a time before it was launched.)
            elif row.get("state") == CREATED and tag_of(row) == tag:
                reset.add(tag)
        if wanted := marked - self._asked:
            logger.info("%s: cancelling %d jobs", manager.study, len(wanted))
            self._stop(wanted)
        self.stop_reset(manager, reset)

    def stop_reset(self, manager: TaskManager, tags: Set[str]) -> None:
        """Have the jobs of runs stopped that were reset."""
        if wanted := tags - self._asked:
            logger.info(
                "%s: stopping %d jobs: their runs were reset, and start again when they have ended",
                manager.study,
                len(wanted),
            )
            self._stop(wanted)

    def forget(self, tags: Iterable[str]) -> None:
        """Begin anew with executions: they have ended, or their generators have not heard what was asked."""
        self._asked.difference_update(tags)

    def tasks(self) -> list[asyncio.Future[Any]]:
        """The requests that generators have not answered yet."""
        return list(self._under_way)

    def _stop(self, tags: Set[str]) -> None:
        self._asked |= tags
        for generator, some in self._in_hand.by_generator(tags).items():
            request = asyncio.ensure_future(generator.cancel(some))
            self._under_way.add(request)
            request.add_done_callback(partial(self._has_stopped, some))

    def _has_stopped(self, tags: Sequence[str], request: asyncio.Future[None]) -> None:
        self._under_way.discard(request)
        if not request.cancelled() and (error := request.exception()):
            logger.error("jobs could not be stopped", exc_info=error)
            self.forget(tags)
            asyncio.get_running_loop().call_later(_AGAIN_S, self._look_again)
