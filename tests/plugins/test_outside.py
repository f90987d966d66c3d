"""Conditions that look at the clock or at files are told from those that look at the workflow only."""

from __future__ import annotations

import math
import os
import time
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from motoko_plugins.conditions._outside import looks_outside

LIMIT = 3
STATES = {"FINISHED", "FORWARDED"}


class Probe:
    def ready(self, run: Any, job: Any) -> bool:
        return True


probe = Probe()


def late(run: Any, job: Any) -> bool:
    return time.time() > 1e9


def calls_late(workflow: Any, task_manager: Any) -> bool:
    return late(None, None)


def imports_inside(run: Any, job: Any) -> bool:
    import socket

    return bool(socket.gethostname())


def opens(run: Any, job: Any) -> bool:
    with open("go") as file:  # noqa: PTH123
        return bool(file)


def in_a_comprehension(workflow: Any, task_manager: Any) -> bool:
    return any(os.path.exists(str(run.id)) for run, _ in task_manager.select())  # noqa: PTH110


def captures(path: Path) -> Any:
    return lambda workflow, task_manager: path.exists()


def looks_at_runs(run: Any, job: Any) -> bool:
    return run.state in STATES and math.sqrt(job.x) < LIMIT and run.time == job.os


def looks_at_workflow(workflow: Any, task_manager: Any) -> bool:
    return len([r for r, j in workflow.mult.select() if looks_at_runs(r, j)]) >= 2


def recursive(run: Any, job: Any) -> bool:
    return recursive(run, job)


@pytest.mark.parametrize(
    "function",
    [
        late,
        calls_late,
        imports_inside,
        opens,
        in_a_comprehension,
        captures(Path("go")),
        lambda run, job: monotonic() > 3,
        probe.ready,
        partial(lambda limit, run, job: True, probe),
    ],
)
def test_functions_that_look_outside(function: Any) -> None:
    assert looks_outside(function)


@pytest.mark.parametrize(
    "function",
    [
        looks_at_runs,
        looks_at_workflow,
        recursive,
        lambda run, job: run.id < LIMIT and run.state == "FINISHED",
        lambda workflow, task_manager: len(task_manager.select([])) < 2,
        partial(lambda limit, run, job: run.id < limit, 3),
    ],
)
def test_functions_that_look_at_the_workflow(function: Any) -> None:
    assert not looks_outside(function)
