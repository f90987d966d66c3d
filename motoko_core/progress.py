"""A bar for work that takes a while, on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Work that is done sooner shows no bar, in seconds.
PATIENCE_S = 1.0


@contextmanager
def shown(
    total: int, what: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Show how far a loop is; the context gets a function to call with the number of steps just done.

    Nothing appears in the first second, nor where standard error is not a terminal or shows something live
    already, such as the table of ``motoko run``.
    """
    begin, done = clock(), 0
    bar: Any = None

    def advance(steps: int) -> None:
        nonlocal bar, done
        done += steps
        if bar is None and clock() - begin >= PATIENCE_S and _is_free():
            bar = _start(what, total)
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _is_free() -> bool:
    # Whoever shows something live has put a proxy in the place of standard error, for what others write.
    proxy = getattr(sys.modules.get("rich.file_proxy"), "FileProxy", ())
    try:
        return not isinstance(sys.stderr, proxy) and sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _start(what: str, total: int) -> Any:
    from rich.console import Console
    from rich.errors import LiveError
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        bar.start()
    except LiveError:  # another thread was first
        return None
    bar.add_task(what, total=total)
    return bar
