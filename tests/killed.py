"""An orchestrator that kills itself with -9 at a given point of a firing; run as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ZODB.mvccadapter import MVCCAdapterInstance

from motoko_core.workflow import Workflow

POINTS = [
    *("at the start", "before the checkpoint", "after the checkpoint"),
    *("before the commit", "finish 1", "finish 2", "finish 3", "after the commit"),
]


def count_name(workflow: Workflow) -> str:
    """The workflow variable in which the firings are counted."""
    return f"count_{workflow.run_name}".replace("-", "_")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_when_a_database_finishes(number: int) -> None:
    finish, done = MVCCAdapterInstance.tpc_finish, 0

    def tpc_finish(self: Any, *args: Any) -> Any:
        nonlocal done
        done += 1
        if done == number:
            _die()
        return finish(self, *args)

    MVCCAdapterInstance.tpc_finish = tpc_finish


def orchestrator(fatal: str, form: str) -> Callable[..., Any]:
    """A ``main`` with one action that fires once; it changes its run, another study and a variable."""

    async def handle(workflow: Workflow, runs: Any = ()) -> None:
        if fatal == "at the start":
            _die()
        for run, _job in runs:
            run.state = "FORWARDED"
        workflow.add.createTask(x=7.0)
        setattr(workflow.vars, count_name(workflow), getattr(workflow.vars, count_name(workflow), 0) + 1)
        if fatal == "before the checkpoint":
            _die()
        if fatal == "after the checkpoint":
            await workflow.add.select()
            _die()
        if fatal.startswith("finish"):
            _die_when_a_database_finishes(int(fatal.split()[1]))
        if fatal == "before the commit":
            _die()

    def fired(workflow: Workflow, task_manager: Any) -> bool:
        if not workflow.add.select():
            return False
        if fatal == "after the commit":
            _die()
        return True

    def always(workflow: Workflow, task_manager: Any) -> bool:
        return True

    async def finish(workflow: Workflow) -> None:
        await asyncio.sleep(0)
        workflow.finished = True

    async def main(workflow: Workflow) -> None:
        events = {"run": "state = FINISHED", "kept": "state in (FINISHED, FORWARDED)", "boolean": always}
        event: Any = events[form]
        workflow.add_action("once", task="mult", event=event, f=handle, once_per_run=True)
        workflow.add_action("end", task="mult", event=fired, f=finish)

    return main


if __name__ == "__main__":
    path, run_name, *point = sys.argv[1:]
    workflow = Workflow(path)
    workflow.run_name = run_name
    workflow.orchestrator_function = orchestrator(*point)
    workflow.execute()
