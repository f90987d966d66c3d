"""What a consumer of the change feed gets: batches of changes, merged while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import attrs

from motoko_core.interfaces import RunChange

#: Runs whose changes are kept for a consumer that does not take them: some 5 MB.
LIMIT = 20_000


@attrs.frozen(kw_only=True)
class Batch:
    """Changes of one study since the batch before; no run occurs twice.

    :param changes: by run: the state before the first change, and after the last one.
    :param rescan: anything else may have changed too, so everything is to be looked at.
    """

    changes: tuple[RunChange, ...] = ()
    rescan: bool = False

    def __iter__(self) -> Iterator[RunChange]:
        return iter(self.changes)

    def __bool__(self) -> bool:
        return self.rescan or bool(self.changes)


class Changes:
    """The changes of one study for one consumer: an asynchronous iterator of :class:`Batch`.

    A consumer that is slower than the changes gets fewer and larger batches; if they outgrow ``limit``, one
    that says ``rescan``. Made by :meth:`~motoko_core.study.feed.ChangeFeed.changes`.

    :param wake: called when there may be something to take.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None, *, limit: int = LIMIT) -> None:
        self._wake = wake
        self._limit = limit
        self._changes: dict[int, RunChange] = {}
        self._rescan = False
        self._error: BaseException | None = None
        self._something = asyncio.Event()

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return self._rescan or bool(self._changes) or self._error is not None

    def put(self, changes: Iterable[RunChange] = (), *, rescan: bool = False) -> None:
        """Add what happened after all that was put before."""
        for change in changes:
            earlier = self._changes.get(change.run_id)
            if earlier is not None:
                change = RunChange(run_id=change.run_id, before=earlier.before, after=change.after)
            self._changes[change.run_id] = change
        if len(self._changes) > self._limit:
            self._changes.clear()
            rescan = True
        self._rescan |= rescan
        self._notify()

    def fail(self, error: BaseException) -> None:
        """Have the consumer raise ``error``: the study cannot be followed any more."""
        self._error = error
        self._notify()

    def _notify(self) -> None:
        self._something.set()
        self._wake()

    def take(self) -> Batch:
        """What has happened since the last call; an empty batch if nothing has."""
        if self._error is not None:
            raise self._error
        batch = Batch(changes=tuple(self._changes.values()), rescan=self._rescan)
        self._changes.clear()
        self._rescan = False
        self._something.clear()
        return batch

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Batch:
        while not self:
            self._something.clear()
            await self._something.wait()
        return self.take()
