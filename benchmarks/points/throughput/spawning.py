"""No engine: what the processes cost that every engine has to start."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .tasks import WORKERS, Engine, Taken, command


class _PosixSpawn:
    def __init__(self) -> None:
        self._command = command()

    def independent(self, count: int) -> Taken:
        begin = time.perf_counter()
        self._execute(count, WORKERS)
        return Taken(0, time.perf_counter() - begin)

    def chain(self, length: int) -> float:
        begin = time.perf_counter()
        self._execute(length, 1)
        return (time.perf_counter() - begin) / length

    def _execute(self, left: int, workers: int) -> None:
        running = 0
        while left or running:
            while left and running < workers:
                os.posix_spawnp(self._command[0], self._command, os.environ)
                left, running = left - 1, running + 1
            os.wait()
            running -= 1


class _Asyncio:
    def __init__(self) -> None:
        self._command = command()

    def independent(self, count: int) -> Taken:
        begin = time.perf_counter()
        asyncio.run(self._execute(count, WORKERS))
        return Taken(0, time.perf_counter() - begin)

    def chain(self, length: int) -> float:
        begin = time.perf_counter()
        asyncio.run(self._execute(length, 1))
        return (time.perf_counter() - begin) / length

    async def _execute(self, count: int, workers: int) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                process = await asyncio.create_subprocess_exec(*self._command)
                await process.wait()

        await asyncio.gather(*(work() for _ in range(workers)))


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    """:param variant: ``posix_spawn`` or ``asyncio``."""
    yield _Asyncio() if variant == "asyncio" else _PosixSpawn()
