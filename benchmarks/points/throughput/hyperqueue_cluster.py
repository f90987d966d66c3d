"""HyperQueue: a server and a worker with two cores.

Its client looks once a second whether a job is done. So the time of the last task's output file is taken,
which is made when that task starts: some milliseconds less than it should be.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from .tasks import WORKERS, Engine, Taken, command


class _HyperQueue:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._command = command()

    def independent(self, count: int) -> Taken:
        job = Job()
        begin = time.time()
        for _ in range(count):
            job.program(self._command)
        return Taken(0, max(self._starts(job)) - begin)

    def chain(self, length: int) -> float:
        job, before = Job(), list[Any]()
        for _ in range(length):
            before = [job.program(self._command, deps=before)]
        starts = self._starts(job)
        return (max(starts) - min(starts)) / (length - 1)

    def _starts(self, job: Any) -> list[float]:
        """Execute a job; answer when each of its tasks was started."""
        self._client.wait_for_jobs([self._client.submit(job)])
        outputs = [*Path().glob("*.stdout")]
        starts = [path.stat().st_mtime for path in outputs]
        for path in outputs:
            path.unlink()
        assert len(starts) == len(job.tasks)
        return starts


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    server = Path("server").resolve()  # by default a directory that stays behind
    with LocalCluster(str(server)) as cluster:
        cluster.start_worker(WorkerConfig(cores=WORKERS))
        yield _HyperQueue(cluster.client())
