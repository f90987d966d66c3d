"""What the scripts share: how they time, and how they tell."""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

# Libraries print, and 0.1.4 says what it fires: the real standard output is for figures alone.
_OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def arguments(*flags: str, words: Sequence[str] = ()) -> argparse.Namespace:
    """Read the command line that every script has.

    :param flags: numbers that a script takes beside.
    :param words: what else it has to be told.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=0, help="runs in the study")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a figure is repeated")
    for flag in flags:
        parser.add_argument(flag, type=float, default=0.0)
    for word in words:
        parser.add_argument(word, required=True)
    return parser.parse_args()


def tell(figure: str, value: float, samples: int = 1) -> None:
    """Report a figure.

    :param value: in the unit of ``benchmarks/figures.py``.
    :param samples: what it is made of: calls, tasks, events.
    """
    _OUT.write(json.dumps({"figure": figure, "value": value, "samples": samples}) + "\n")
    _OUT.flush()


def seconds(work: Callable[[], Any]) -> float:
    """How long one call takes. Garbage is collected as always: its users do not switch that off either."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def tell_warm(figure: str, work: Callable[[], Any], limit_s: float, *, scale: float = 1e3) -> None:
    """Report the median of the calls after the first: as many as fit in the time, one at least."""
    work()
    gc.collect()  # what the figures before have left
    found: list[float] = []
    end = time.perf_counter() + limit_s
    while not found or (len(found) < 1000 and time.perf_counter() < end):
        found.append(seconds(work))
    tell(figure, median(found) * scale, len(found))


def resident_bytes() -> int:
    """The memory of this process that is in RAM (RSS), without garbage."""
    import psutil  # Motoko has it, other engines need not

    gc.collect()
    return int(psutil.Process().memory_info().rss)
