"""Work that may block, such as reading from a server, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: What is under way, of all loops.
under_way: set[asyncio.Future[Any]] = set()


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Call ``work`` in a thread of its own.

    The thread is a daemon, and of no pool: work that hangs because a server is paused keeps neither other
    work waiting nor the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    under_way.add(future)
    future.add_done_callback(under_way.discard)

    def finish(result: Any, error: BaseException | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001  raised where the future is awaited
            error = raised
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:  # the loop was closed meanwhile
            under_way.discard(future)

    threading.Thread(target=run, name="motoko", daemon=True).start()
    return future
