"""How long a launcher gathers what happens before it writes it down."""

from __future__ import annotations

import time
from collections.abc import Callable

#: With so few jobs, each end is written at once: somebody may wait for it.
FEW = 16
#: Rounds take this part of the time, and none is put off by more than so many seconds.
SHARE = 0.1
LIMIT_S = 0.2
#: No longer than this part of the jobs takes to end: more may be launched then, and nobody shall run idle.
_OF_THE_JOBS = 0.5


class Pace:
    """Puts off rounds while many jobs are at work: a commit costs as much for one run as for ten.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = self._last = clock()

    def begin(self) -> None:
        """A round begins."""
        self._began = self._clock()

    def window_s(self, ended: int, jobs: int) -> float:
        """How long to wait after a round.

        :param ended: jobs that have ended since the round before.
        :param jobs: those that have not ended.
        """
        now = self._clock()
        since_s, self._last = now - self._last, now
        if jobs <= FEW:
            return 0.0
        window_s = min(LIMIT_S, (now - self._began) * (1 / SHARE - 1))
        return min(window_s, _OF_THE_JOBS * jobs * since_s / ended) if ended else window_s
