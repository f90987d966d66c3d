"""A launcher that kills itself with ``kill -9`` at a given step. Executed as a process of its own.

``python -c "..." '{"path": ..., "step": ..., "calls": ...}'``: see :func:`command`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from motoko_core.interfaces import JobGenerator
from motoko_core.launch import daemon, launcher
from motoko_core.workflow import Workflow

__all__ = ["STEPS", "command", "main"]

#: Where a launcher can be killed, in the order of its work.
STEPS = (
    "before the claim",
    "after the claim",
    "after the run directories",
    "before submit",
    "in submit",
    "after submit",
    "after the handles",
    "before the settlement",
    "after the settlement",
)
#: The commits around which it is killed: how the launcher calls them.
_COMMITS = {
    "before the claim": ("before", "claim"),
    "after the claim": ("after", "claim"),
    "after the run directories": ("after", "prepare"),
    "before submit": ("after", "launch"),
    "before the settlement": ("before", "settle"),
    "after the settlement": ("after", "settle"),
}
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
    step, calls = job["step"], job["calls"]
    if step in _COMMITS:
        _die_at_commit(*_COMMITS[step])
    elif step == "after the handles":
        _die_after(launcher.Launcher, "_note")
    elif step in ("in submit", "after submit"):
        kind = type(_generator_of(workflow))
        _die_after(kind, "submit", calls if step == "in submit" else 0)
    elif calls:
        _die_after(launcher.Launcher, "run", calls)
    daemon.run_launcher(workflow)


def _generator_of(workflow: Workflow) -> JobGenerator:
    """The class that the launcher will use; the object itself is not kept."""
    made: list[JobGenerator] = [daemon.make_generator(workflow)]
    return made[0]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_commit(when: str, what: str) -> None:
    module: Any = launcher
    transact = module.transact

    def mortal(title: str, work: Callable[[], Any]) -> Any:
        if title.endswith(f": {what}") and when == "before":
            _die()
        answer = transact(title, work)
        if title.endswith(f": {what}"):
            _die()
        return answer

    module.transact = mortal


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
