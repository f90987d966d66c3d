"""Executing an orchestrator in this process: signals, exit codes, and a note on how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motoko_core.cli.output import complain, is_terminal
from motoko_core.errors import MotokoError

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPING = "\nmotoko: stopping; press Ctrl-C again to stop at once"


class Interrupted(MotokoError):
    """The user stopped the work, with Ctrl-C or SIGTERM."""


def interruptible(
    work: Callable[[], Coroutine[Any, Any, int]], *, at_once: Callable[[], None] = lambda: None
) -> int:
    """Execute ``work()`` in an event loop of its own; answer its result.

    The first SIGINT or SIGTERM cancels it, the second ends the process there and then. Python's own
    handler would not do: user code that blocks the loop would have to return first.

    :param at_once: called before the process ends at the second signal.
    :raises Interrupted: it was cancelled by a signal.
    """
    received: list[int] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    def on_signal(number: int, _frame: Any) -> None:
        received.append(number)
        if len(received) > 1:
            _write("\nmotoko: stopping at once\n")
            at_once()
            os._exit(1)
        if not (running and is_terminal()):
            _write(_STOPPING + "\n")
        for loop, task in running:
            if is_terminal():  # a live table would wipe out what does not go through sys.stderr, in its turn
                loop.call_soon_threadsafe(complain, _STOPPING)
            loop.call_soon_threadsafe(task.cancel)

    async def body() -> int:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        if received:
            raise asyncio.CancelledError
        return await work()

    with _handling(on_signal):
        try:
            return asyncio.run(body())
        except asyncio.CancelledError:
            raise Interrupted("the workflow was stopped") from None


@contextmanager
def _handling(on_signal: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(text: str) -> None:
    # A signal may arrive while sys.stderr is being written to, which does not bear a second call.
    with suppress(OSError):
        os.write(2, text.encode())


async def execute(workflow: Workflow, params: dict[str, Any]) -> int:
    """Execute the workflow; answer the exit code. User code may end it with ``sys.exit``."""
    try:
        await workflow.execute_async(**params)
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        complain(str(leaving.code))
        return 1
    return 0


# ---------------------------------------------------------------------- how it ended


def _note_path(workflow: Workflow) -> Path:
    from motoko_core.lifecycle import state_directory

    return state_directory(workflow) / "orchestrator.json"


@contextmanager
def noted(workflow: Workflow) -> Iterator[dict[str, Any]]:
    """Keep a note on this execution, for ``motoko orchestrator status``.

    The context gets the note; ``exit_code`` is to be set in it.
    """
    note: dict[str, Any] = {"pid": os.getpid(), "run_name": workflow.run_name, "started": time.time()}
    _write_note(workflow, note)
    try:
        yield note
    except (Interrupted, asyncio.CancelledError):
        note["outcome"] = "was stopped"
        raise
    except BaseException as error:
        first_line = str(error).partition("\n")[0].rstrip(":")  # what fails goes on with what it wrote
        note["outcome"] = f"failed: {first_line or type(error).__name__}"
        raise
    else:
        code = note.get("exit_code", 0)
        note["outcome"] = "finished" if code == 0 else f"ended with exit code {code}"
    finally:
        note["ended"] = time.time()
        _write_note(workflow, note)


def _write_note(workflow: Workflow, note: dict[str, Any]) -> None:
    path = _note_path(workflow)
    with suppress(OSError):  # status is a convenience; a full disk must not hide how the workflow ended
        draft = path.with_name(path.name + ".new")
        draft.write_text(json.dumps(note))
        draft.replace(path)


def last_note(workflow: Workflow) -> dict[str, Any]:
    """The note on the last execution; empty if there is none."""
    try:
        note = json.loads(_note_path(workflow).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
