"""jobflow: ``run_locally``, which executes one job at a time, with its store in memory."""

from __future__ import annotations

import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobflow import Flow, job, run_locally

from .tasks import Engine, Taken, command


def _execute(words: list[str], before: Any = None) -> int:
    return subprocess.run(words, check=True).returncode


_job = job(_execute)


class _Jobflow:
    def __init__(self) -> None:
        self._command = command()

    def independent(self, count: int) -> Taken:
        begin = time.perf_counter()
        self._run([_job(self._command) for _ in range(count)])
        return Taken(0, time.perf_counter() - begin)

    def chain(self, length: int) -> float:
        begin = time.perf_counter()
        jobs = [_job(self._command)]
        while len(jobs) < length:
            jobs.append(_job(self._command, jobs[-1].output))
        self._run(jobs)
        return (time.perf_counter() - begin) / length

    def _run(self, jobs: list[Any]) -> None:
        run_locally(Flow(jobs), log=False, ensure_success=True)


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    warnings.simplefilter("ignore")  # thousands of lines about what it calls itself
    yield _Jobflow()
