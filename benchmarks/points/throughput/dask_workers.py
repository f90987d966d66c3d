"""Dask distributed: two worker processes on this machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster

from .tasks import WORKERS, Engine, Taken, command


def _execute(words: list[str], before: Any = None) -> int:
    return subprocess.run(words, check=True).returncode


class _Dask:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._command = command()

    def independent(self, count: int) -> Taken:
        begin = time.perf_counter()
        self._client.gather(self._client.map(_execute, [self._command] * count, pure=False))
        return Taken(0, time.perf_counter() - begin)

    def chain(self, length: int) -> float:
        begin = time.perf_counter()
        future = None
        for _ in range(length):
            future = self._client.submit(_execute, self._command, future, pure=False)
        assert future is not None
        future.result()
        return (time.perf_counter() - begin) / length


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield _Dask(client)
