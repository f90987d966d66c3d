"""The conditions and callbacks that come with Motoko, by name.

``workflow.condition("all_finished", task="mult")``, ``workflow.action("create_tasks", task="add", x=1)``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from motoko_core.errors import ConfigError, nearest
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Condition, WorkflowCondition
from motoko_core.states import ACTIVE, FAILURES, is_active, is_failure


def _in_states(states: frozenset[str]) -> list[str]:
    """Constraints for the runs in one of ``states``: the study's index answers them without a scan."""
    return ["state in (" + ", ".join(f'"{state}"' for state in sorted(states)) + ")"]


_ACTIVE_RUNS = _in_states(ACTIVE)
_UNSETTLED_RUNS = _in_states(ACTIVE | FAILURES)


def all_finished(*, task: str | None = None) -> Condition:
    """Hold while a study has at least one run of this ``run_name`` and each is done, none failed.

    :param task: the task manager; None for the one that the action watches.
    :raises ConfigError: ``task`` is not a name; when evaluated: there is no such task manager.
    """
    if task is not None:
        _check_task("all_finished", task)

    def evaluate(workflow: Any, task_manager: Any) -> bool:
        study = task_manager
        if task is not None:
            managers = workflow.task_managers
            if task not in managers:
                raise ConfigError(
                    f"there is no task manager {task!r}",
                    where="condition 'all_finished'",
                    hint=nearest(task, managers),
                )
            study = managers[task]
        # The states are looked at again, so that a run without any state holds the condition back.
        if any(is_active(r.state) or is_failure(r.state) for r, _ in study.select(_UNSETTLED_RUNS)):
            return False
        return bool(study.select([]))

    which = f"of {task!r}" if task is not None else "of the study"
    return WorkflowCondition(description=f"all runs {which} finished", evaluate=evaluate)


def idle() -> Condition:
    """Hold while the workflow has runs and none of them, in any study, is under way."""

    def evaluate(workflow: Any, task_manager: Any) -> bool:
        studies = list(workflow.task_managers.values())
        if any(is_active(run.state) for study in studies for run, _ in study.select(_ACTIVE_RUNS)):
            return False
        return any(bool(study.select([])) for study in studies)

    return WorkflowCondition(description="no run of any study under way", evaluate=evaluate)


def every(*, seconds: float, clock: Callable[[], float] = time.monotonic) -> Condition:
    """Hold once per so many seconds, the first time so many seconds after it was made.

    At least that much time lies between two times; those that were missed are not made up for.

    :param clock: answers the time in seconds.
    :raises ConfigError: ``seconds`` is not a positive number.
    """
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds <= 0:
        raise ConfigError(
            f"seconds={seconds!r} is not a positive number",
            where="condition 'every'",
            hint="Write seconds=60.",
        )
    last = clock()

    def evaluate(workflow: Any, task_manager: Any) -> bool:
        nonlocal last
        now = clock()
        if now - last < seconds:
            return False
        last = now
        return True

    return WorkflowCondition(description=f"every {seconds:g} s", outside=True, evaluate=evaluate)


def file_exists(*, path: str | os.PathLike[str]) -> Condition:
    """Hold while there is a file or a directory at ``path``, which may start with ``~``.

    :raises ConfigError: ``path`` is not a path.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip():
        raise ConfigError(
            f"path={path!r} is not a path", where="condition 'file_exists'", hint='Write path="done.txt".'
        )
    # Made absolute at once: user code may change the working directory later.
    place = Path(path).expanduser().absolute()
    return WorkflowCondition(
        description=f"file {place} exists",
        outside=True,
        evaluate=lambda workflow, task_manager: place.exists(),
    )


def make_create_tasks(
    *, task: str, run_params: Mapping[str, Any] | None = None, **job_params: Any
) -> Callable[..., Any]:
    """Make a callback that creates tasks as ``createTask`` does, without waiting for them.

    :param task: name or alias of the task manager to create them in.
    :raises ConfigError: ``task`` is not a name.
    """
    _check_task("create_tasks", task)

    # createTask stores the name of the function that calls it as the runs' event_name.
    async def create_tasks(workflow: Any, **_: Any) -> None:
        # A copy for each firing, because createTask fills in what the study's bd.yaml says.
        params = None if run_params is None else dict(run_params)
        getattr(workflow, task).createTask(run_params=params, **job_params)

    return create_tasks


def make_finish() -> Callable[..., Any]:
    """Make a callback that ends the workflow."""

    async def finish(workflow: Any, **_: Any) -> None:
        workflow.finished = True

    return finish


def _check_task(name: str, task: object) -> None:
    if not isinstance(task, str) or not task.strip():
        raise ConfigError(
            f"task={task!r} is not the name of a task manager",
            where=repr(name),
            hint="It is one of the names under task_managers in motoko.yaml.",
        )


@hookimpl
def motoko_conditions() -> Mapping[str, Callable[..., Condition]]:
    return {"all_finished": all_finished, "idle": idle, "every": every, "file_exists": file_exists}


@hookimpl
def motoko_actions() -> Mapping[str, Callable[..., Callable[..., Any]]]:
    return {"create_tasks": make_create_tasks, "finish": make_finish}
