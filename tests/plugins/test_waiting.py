"""Whoever is cancelled ends, whatever comes at that moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from motoko_plugins.generators._commands import execute
from motoko_plugins.generators._waiting import wait_until_set


def after(ticks: int, call: Callable[[], object]) -> None:
    """Call something so many turns of the event loop later."""
    loop = asyncio.get_running_loop()
    loop.call_soon(call) if ticks == 0 else loop.call_soon(after, ticks - 1, call)


async def test_an_event_is_set_when_the_time_is_over() -> None:
    event = asyncio.Event()
    await wait_until_set(event, 0.01)
    assert event.is_set()


async def test_an_event_that_was_set_before_is_not_set_later() -> None:
    event = asyncio.Event()
    after(1, event.set)
    await wait_until_set(event, 0.01)
    event.clear()
    await asyncio.sleep(0.02)
    assert not event.is_set()


@pytest.mark.parametrize("ticks", range(4))
async def test_waiting_for_an_event_is_cancelled_at_the_moment_it_is_set(ticks: int) -> None:
    event = asyncio.Event()
    was_cancelled: list[bool] = []
    task = asyncio.create_task(wait_until_set(event, 60.0))
    after(3, event.set)
    after(3 + ticks, lambda: was_cancelled.append(task.cancel()))
    await asyncio.wait({task})
    while not was_cancelled:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert task.cancelled() == was_cancelled[0]


@pytest.mark.parametrize("ticks", range(6))
async def test_a_command_is_cancelled_at_the_moment_it_answers(
    monkeypatch: pytest.MonkeyPatch, ticks: int
) -> None:
    communicate = asyncio.subprocess.Process.communicate
    was_cancelled: list[bool] = []

    async def communicate_and_cancel(
        process: asyncio.subprocess.Process, stdin: bytes | None = None
    ) -> tuple[bytes, bytes]:
        answer = await communicate(process, stdin)
        after(ticks, lambda: was_cancelled.append(task.cancel()))
        return answer

    monkeypatch.setattr(asyncio.subprocess.Process, "communicate", communicate_and_cancel)
    task = asyncio.create_task(execute(["true"], environment=os.environ, timeout_s=60.0))
    await asyncio.wait({task})
    while not was_cancelled:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert task.cancelled() == was_cancelled[0]
