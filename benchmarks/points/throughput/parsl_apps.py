"""Parsl: threads or its own worker processes (HTEX); a command as ``bash_app``, or started by a function.

A ``bash_app`` is what Parsl's users write; it starts a shell for the command, which here starts bash again.
A function that calls ``subprocess.run`` starts exactly the command.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import parsl
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor

from .tasks import WORKERS, Engine, Taken, command


def _shell(words: list[str], number: int, before: Any = None) -> str:
    return " ".join(words)


def _function(words: list[str], number: int, before: Any = None) -> int:
    import subprocess

    return subprocess.run(words, check=True).returncode


class _Parsl:
    def __init__(self, app: Any) -> None:
        self._app = partial(app, command())
        self._numbers = itertools.count()  # each call is another one, or a checkpoint would answer it

    def independent(self, count: int) -> Taken:
        begin = time.perf_counter()
        for future in [self._app(next(self._numbers)) for _ in range(count)]:
            future.result()
        return Taken(0, time.perf_counter() - begin)

    def chain(self, length: int) -> float:
        begin = time.perf_counter()
        future = None
        for _ in range(length):
            future = self._app(next(self._numbers), before=future)  # a keyword: it has a default
        assert future is not None
        future.result()
        return (time.perf_counter() - begin) / length


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    """:param variant: of ``htex`` (or threads), ``bash`` (or a function), ``checkpoint``; + between them."""
    chosen = set(variant.split("+"))
    executor = (
        HighThroughputExecutor(max_workers_per_node=WORKERS, address="127.0.0.1")
        if "htex" in chosen
        else ThreadPoolExecutor(max_threads=WORKERS)
    )
    stores = "checkpoint" in chosen
    memoizer = BasicMemoizer(checkpoint_mode="task_exit") if stores else None
    kernel = parsl.load(Config([executor], memoizer=memoizer))
    make, function = (parsl.bash_app, _shell) if "bash" in chosen else (parsl.python_app, _function)
    try:
        yield _Parsl(make(function, cache=stores))
    finally:
        kernel.cleanup()
