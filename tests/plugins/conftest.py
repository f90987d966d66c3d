"""The bash generator with real processes. Nothing waits for time: jobs wait for fifos, tests for ends."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from motoko_core.daemons import wait_until
from motoko_core.interfaces import Ended, LaunchTask
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S
from tests.launching import fifo
from tests.processes import is_zombie

__all__ = ["fifo", "generator", "make_task", "next_ends", "run", "watching"]


_numbers = itertools.count(1)


def make_task(root: Path, text: str, number: int = 1, **changes: Any) -> LaunchTask:
    directory = root / f"run-{number}"
    directory.mkdir(exist_ok=True)
    (directory / "launch.sh").write_text(text)
    values: dict[str, Any] = {
        # (Processes are found by it, and other tests run beside this one.)
        "tag": f"motoko-add-{number}-{os.getpid()}-{next(_numbers)}",
        "task": f"add.{number}",
        "run_id": number,
        "run_name": "wf",
        "directory": directory,
        "script": "launch.sh",
    }
    return LaunchTask(**(values | changes))


async def next_ends(generator: BashGenerator, count: int) -> list[Ended]:
    async def collect() -> list[Ended]:
        found = []
        async for end in generator.ended():
            found.append(end)
            if len(found) == count:
                break
        return found

    return await asyncio.wait_for(collect(), TIMEOUT_S) if count else []


async def run(generator: BashGenerator, task: LaunchTask) -> Ended:
    (answer,) = await generator.submit([task])
    assert answer.error is None
    (end,) = await next_ends(generator, 1)
    assert end.tag == task.tag
    return end


@pytest.fixture(params=["pidfd", "thread"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "thread":

        def unsupported(pid: int, flags: int = 0) -> int:
            raise OSError("as on an old kernel")

        monkeypatch.setattr(os, "pidfd_open", unsupported)


@pytest.fixture
async def generator(watching: None) -> AsyncIterator[BashGenerator]:
    generator = BashGenerator(BashOptions(slots=4))
    descriptors = psutil.Process().num_fds()
    yield generator
    await generator.close()
    # (What an earlier test has left may be closed meanwhile.)
    assert psutil.Process().num_fds() <= descriptors
    # A thread reaps the spawners that others have killed, in its own time.
    assert wait_until(lambda: not any(map(is_zombie, psutil.Process().children())), TIMEOUT_S)
