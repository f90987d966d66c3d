"""When a scheduler's jobs are looked at."""

from __future__ import annotations

import asyncio

from motoko_plugins.generators._waiting import wait_until_set

#: How long the scheduler may be silent between two questions, at most.
_SILENCE_S = 60.0
#: The exit records are looked at for a twentieth of the time at most: directories may be far away.
_SHARE = 20
_SHORTEST_S = 0.1


class Times:
    """When the exit records are read next, and when the queue is asked; by the clock of the event loop.

    :param poll_interval_s: how often the queue is asked while little happens.
    """

    def __init__(self, poll_interval_s: float) -> None:
        self._poll_interval_s = poll_interval_s
        self._interval_s = poll_interval_s
        self._records_due = 0.0
        self._queue_due = 0.0
        self._hurried = float("-inf")
        self._wake = asyncio.Event()
        #: Whether the last question got no answer.
        self.is_silent = False

    @property
    def short_s(self) -> float:
        """How soon is soon."""
        return max(_SHORTEST_S, self._poll_interval_s / 10)

    @property
    def are_records_due(self) -> bool:
        """Whether the exit records are to be read now."""
        return _now() >= self._records_due

    @property
    def is_queue_due(self) -> bool:
        """Whether the queue is to be asked now."""
        return _now() >= self._queue_due

    async def wait(self, *, for_jobs: bool = False) -> None:
        """Wait until something is due, or is due earlier than planned.

        :param for_jobs: only for the latter: there is nothing to look at.
        """
        self._wake.clear()
        due = None if for_jobs else min(self._records_due, self._queue_due) - _now()
        await wait_until_set(self._wake, due)

    # ------------------------------------------------------------------ earlier

    def look_soon(self, *, at_once: bool = False) -> None:
        """Look at both earlier than planned: something was submitted, or is about to end."""
        delay_s = 0.0 if at_once else self.short_s
        now = _now()
        self._records_due = min(self._records_due, now + delay_s)
        # However often something is submitted, the queue is asked as often as if nothing were, but once.
        if not self.is_silent and (at_once or now - self._hurried >= self._poll_interval_s):
            self._hurried = now
            self._interval_s = self.short_s
            self.ask_within(delay_s)
        self._wake.set()

    def ask_now(self) -> None:
        """Ask the queue at once, and often for a while: it alone knows why something has ended."""
        self._interval_s = self.short_s
        self._queue_due = 0.0

    def ask_within(self, delay_s: float) -> None:
        """Ask the queue in so many seconds, if that is earlier than planned."""
        self._queue_due = min(self._queue_due, _now() + delay_s)

    # ------------------------------------------------------------------ later

    def has_read(self, took_s: float) -> None:
        """The exit records were read now, in so many seconds."""
        self._records_due = _now() + max(self.short_s, _SHARE * took_s)

    def asks(self) -> None:
        """The queue is asked now."""
        self._queue_due = _now() + self._interval_s

    def has_no_answer(self) -> None:
        """Ask less and less often until there is one."""
        if self.is_silent:
            self._interval_s = min(2 * self._interval_s, max(_SILENCE_S, self._poll_interval_s))
        self.is_silent = True
        self._queue_due = _now() + self._interval_s

    def has_answered(self) -> None:
        """Ask as often as usual again."""
        if self.is_silent:
            self.is_silent = False
            self._interval_s = self._poll_interval_s

    def has_told(self, *, news: bool) -> None:
        """Ask often after a submission, less and less often while nothing happens.

        :param news: whether something has changed in the queue.
        """
        normal_s = max(_SHORTEST_S, self._poll_interval_s)
        if news:
            self._interval_s = min(self._interval_s, normal_s)
        elif self._interval_s < normal_s:
            self._interval_s = min(normal_s, 2 * self._interval_s)
        else:
            self._interval_s = min(2 * normal_s, 1.25 * self._interval_s)
        self._queue_due = max(self._queue_due, _now() + self._interval_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
