"""Runs for generators of batch schedulers, and waiting for what becomes of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from motoko_core.interfaces import Ended, LaunchTask
from motoko_plugins.generators import _scheduler_generator
from motoko_plugins.generators.slurm import SlurmGenerator, SlurmOptions

#: A real cluster on a busy machine.
TIMEOUT_S = 60.0

#: Everything at its shortest.
QUICK: dict[str, Any] = {"poll_interval_s": 0.2, "lost_after_s": 2.0, "submit_timeout_s": 20.0}


def slurm(**options: Any) -> SlurmGenerator:
    """A generator with options as in motoko.yaml, that asks often."""
    return SlurmGenerator(SlurmOptions(**(QUICK | options)))


class Runs:
    """Run directories below ``root``, each with a tag of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def __call__(self, text: str, **changes: Any) -> LaunchTask:
        self.count += 1
        directory = self.root / changes.pop("name", f"run-{self.count}")
        directory.mkdir()
        file = changes.get("script", "launch.sh")
        (directory / file).write_text(text)
        values: dict[str, Any] = {
            "tag": f"motoko-add-{self.count}-{uuid.uuid4().hex[:12]}",
            "task": f"add.{self.count}",
            "run_id": self.count,
            "run_name": "wf",
            "directory": directory,
            "script": file,
        }
        return LaunchTask(**(values | changes))


@asynccontextmanager
async def following(generator: SlurmGenerator) -> AsyncIterator[Callable[..., Any]]:
    """Collect a generator's ends: ``await ends(task, ...)`` answers them in this order. Closes it after."""
    found: dict[str, Ended] = {}
    news = asyncio.Event()

    async def listen() -> None:
        async for end in generator.ended():
            assert end.tag not in found, f"{end} after {found[end.tag]}"
            found[end.tag] = end
            news.set()

    async def ends(*tasks: LaunchTask) -> list[Ended]:
        async def wait() -> None:
            while not all(task.tag in found for task in tasks):
                assert not listener.done(), listener.exception()
                news.clear()
                await news.wait()

        await asyncio.wait_for(wait(), TIMEOUT_S)
        return [found[task.tag] for task in tasks]

    listener = asyncio.create_task(listen())
    try:
        yield ends
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await generator.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other processes do, with a limit."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), TIMEOUT_S)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers to submissions name the jobs, or say why there are none, however busy the machine is."""
    monkeypatch.setattr(_scheduler_generator, "_PATIENCE_S", TIMEOUT_S)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Make run directories."""
    return Runs(tmp_path)
