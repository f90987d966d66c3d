"""When a launcher writes down what has happened."""

from __future__ import annotations

import pytest

from motoko_core.launch.pace import FEW, LIMIT_S, SHARE, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def window(clock: Clock, pace: Pace, *, cost_s: float, ended: int, jobs: int, since_s: float = 1.0) -> float:
    """The window after a round, some time after the one before."""
    clock.now += since_s
    pace.begin()
    clock.now += cost_s
    return pace.window_s(ended, jobs)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


@pytest.mark.parametrize("jobs", [0, 1, FEW])
def test_few_jobs_are_not_kept_waiting(clock: Clock, pace: Pace, jobs: int) -> None:
    assert window(clock, pace, cost_s=0.01, ended=1, jobs=jobs) == 0


def test_rounds_take_a_share_of_the_time(clock: Clock, pace: Pace) -> None:
    cost_s = 0.01
    window_s = window(clock, pace, cost_s=cost_s, ended=1, jobs=1000)
    assert cost_s / (cost_s + window_s) == pytest.approx(SHARE)


def test_no_round_is_put_off_for_long(clock: Clock, pace: Pace) -> None:
    assert window(clock, pace, cost_s=5.0, ended=0, jobs=1000) == LIMIT_S


def test_a_generator_that_ends_its_jobs_fast_gets_more_before_it_runs_out(clock: Clock, pace: Pace) -> None:
    window(clock, pace, cost_s=0.01, ended=1, jobs=20)
    # 20 in 0.1 s: those 20 that are left take as long.
    window_s = window(clock, pace, cost_s=0.05, ended=20, jobs=20, since_s=0.05)
    assert window_s == pytest.approx(0.05)
