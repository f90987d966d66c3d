"""Waiting that can be cancelled.

Before Python 3.12, ``asyncio.wait_for`` forgets a cancellation that comes at the moment at which the awaited
is there (https://github.com/python/cpython/issues/86296): who works for ever would go on.
"""

from __future__ import annotations

import asyncio


async def wait_until_set(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for an event; when so many seconds are over, it is set here. None: without a limit."""
    loop = asyncio.get_running_loop()
    timer = None if timeout_s is None else loop.call_later(timeout_s, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
