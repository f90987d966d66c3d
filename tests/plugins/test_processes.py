"""Finding the processes of jobs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from motoko_core.interfaces import TAG_VARIABLE
from motoko_plugins.generators._processes import first_of, processes_of


@contextmanager
def process(tag: str, *words: str) -> Iterator[int]:
    environment = {**os.environ, TAG_VARIABLE: tag}
    with subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.PIPE) as started:
        try:
            yield started.pid
        finally:
            started.kill()


def test_a_process_that_begins_to_execute_another_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment it has no environment."""
    tag = f"motoko-add-1-{os.getpid()}"
    with process(tag, "sleep", "1000") as pid:
        read, times = Path.read_bytes, 0

        def read_bytes(path: Path) -> bytes:
            nonlocal times
            times += path == Path(f"/proc/{pid}/environ")
            return b"" if path == Path(f"/proc/{pid}/environ") and times == 1 else read(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        assert processes_of([tag]) == {tag: [pid]}
        assert times == 2


def test_the_first_process_of_a_job_is_the_oldest_that_leads_a_session() -> None:
    """Process ids begin again from the smallest, once the greatest was given."""
    tag = f"motoko-add-2-{os.getpid()}"
    with process(tag, "sleep", "1000") as first:
        # (Its start is known to a hundredth of a second.)
        while psutil.Process(first).create_time() > newest() - 0.05:
            pass
        with process(tag, "sleep", "1000") as later:
            assert first_of([later, first, os.getppid()]) == first
            assert first_of([later]) == later
            assert first_of([]) is None


def newest() -> float:
    """When a process that is started now has been."""
    with subprocess.Popen(["sleep", "1000"]) as now:
        try:
            return psutil.Process(now.pid).create_time()
        finally:
            now.kill()
