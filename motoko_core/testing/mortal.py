"""A launcher that kills itself with ``kill -9`` at a given step. Executed as a process of its own.

``python -c "..." '{"path": ..., "step": ..., "calls": ...}'``: see :func:`command`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motoko_core.launch import daemon, endings, launcher, records, writing
from motoko_core.launch.generators import make_generator
from motoko_core.workflow import Workflow

__all__ = ["STEPS", "command", "main"]

#: Where a launcher can be killed, in the order of its work. Those with "after" come after the commit.
STEPS = (
    "before launch",
    "after launch",
    "in prepare",
    "in submit",
    "after submit",
    "after submitted",
    "before settle",
    "after settle",
)
_PROGRAM = """\
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["sys.path"]
from motoko_core.testing.mortal import main
main(job)
"""


def command(path: Path, *, step: str = "", calls: int = 0) -> list[str]:
    """The command line of a launcher for the workflow ``path``.

    :param step: one of :data:`STEPS`; empty for none of them.
    :param calls: it dies with its ``calls``-th function call: since ``submit`` began if ``step`` is "in
        submit", else since the launcher began; 0: never. Calls are a finer clock than seconds, and the same
        on each machine.
    """
    job = {"path": str(path), "step": step, "calls": calls, "sys.path": sys.path}
    return [sys.executable, "-c", _PROGRAM, json.dumps(job)]


def main(job: dict[str, Any]) -> None:
    """Work as a launcher until the end."""
    workflow = Workflow(job["path"])
    calls = job["calls"]
    when, _, what = job["step"].partition(" ")
    if what == "submit":
        kind = type(make_generator(workflow))
        _die_after(kind, "submit", calls if when == "in" else 0)
    elif what == "submitted":
        _die_after(launcher.Launcher, "_note")
    elif what:
        _die_at_record(when, what)
    elif calls:
        _die_after(launcher.Launcher, "run", calls)
    daemon.run_launcher(workflow)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_record(when: str, what: str) -> None:
    """Die when the launcher writes something down, before it commits that, or afterwards."""
    written: list[str] = []
    module: Any = endings if hasattr(endings, what) else records
    function, write = getattr(module, what), writing.Writer._write

    def record(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            _die()
        written.append(what)
        answer = function(*args, **kwargs)
        if when == "in":
            _die()
        return answer

    def commit(*arguments: Any) -> Any:
        answer = write(*arguments)
        if written and when == "after":
            _die()
        return answer

    setattr(module, what, record)
    setattr(writing.Writer, "_write", commit)  # noqa: B010 - of another type


def _die_after(owner: type[Any], name: str, calls: int = 0) -> None:
    """Die when a method has returned; or before, with the ``calls``-th call of anything since it began."""
    method = getattr(owner, name)

    async def mortal(self: Any, *args: Any, **kwargs: Any) -> Any:
        if calls:
            _die_with_call(calls)
        answer = await method(self, *args, **kwargs)
        if args and not (isinstance(args[0], Sequence) and not args[0]):
            _die()
        return answer

    setattr(owner, name, mortal)


def _die_with_call(number: int) -> None:
    left = number

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            _die()

    threading.setprofile(count)  # for the threads to come
    sys.setprofile(count)
