"""Driving an engine step by step: a clock that stands still, and scripts that play the part of main."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from motoko_core.errors import ActionError
from motoko_core.study import feed as feeds
from motoko_core.study import threads
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S

#: Turns of the event loop in which everything that was taken in has been looked at.
_TURNS = 60


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, workflow: Workflow) -> None:
        self.now = 1000.0
        self._workflow = workflow
        workflow._clock = self

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Let time pass, and the engine notice."""
        self.now += seconds
        if self._workflow._engine is not None:
            self._workflow._engine.wake()
        await settle()

    async def tick(self, number: int = 1) -> None:
        """Let ``poll_interval`` pass so many times."""
        for _ in range(number):
            await self.advance(self._workflow.configuration.poll_interval)


async def settle() -> None:
    """Let the engine do all that it has to do now."""
    quiet = 0
    while quiet < _TURNS:
        await asyncio.sleep(0)
        quiet = 0 if _is_busy() else quiet + 1


def _is_busy() -> bool:
    """Whether something goes on beside the loop that will be heard of in it."""
    loop = asyncio.get_running_loop()
    if any(future.get_loop() is loop for future in threads.under_way):
        return True
    return any(feed.is_behind for (of, _), feed in feeds._feeds.items() if of is loop)


async def until(condition: Callable[[], Any]) -> None:
    """Let the engine work until a condition holds."""
    while not condition():  # noqa: ASYNC110  nobody is there who could set an event
        await asyncio.sleep(0)


async def play(workflow: Workflow, script: Callable[[], Awaitable[None]], /, **params: Any) -> None:
    """Execute a script as ``main``, and finish the workflow after it."""

    async def main(workflow: Workflow) -> None:
        await script()
        workflow.finished = True

    workflow.orchestrator_function = main
    try:
        await asyncio.wait_for(workflow.execute_async(**params), TIMEOUT_S)
    except ActionError as error:
        if isinstance(error.__cause__, AssertionError):
            raise error.__cause__ from None
        raise


class Firings:
    """A callback that notes what it was called with: the ids of its runs, or the task manager."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, task_manager: Any, runs: Sequence[Any] | None = None) -> None:
        self.seen.append([run.id for run, _ in runs] if runs is not None else task_manager.study)

    def take(self) -> list[Any]:
        """What was noted since the last time."""
        seen, self.seen = self.seen, []
        return seen


def ids(references: Sequence[str]) -> list[int]:
    return [int(reference.rpartition(".")[2]) for reference in references]
