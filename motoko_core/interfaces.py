"""What a plugin implements or hands back.

Everything that an extension needs stands here, in :mod:`motoko_core.hookspecs`,
:mod:`motoko_core.errors` and :mod:`motoko_core.states`.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

__all__ = [
    "Abort",
    "CliCommand",
    "Condition",
    "Decision",
    "Ended",
    "ErrorHandler",
    "Failure",
    "Firing",
    "Ignore",
    "JobGenerator",
    "LaunchTask",
    "Retry",
    "RunChange",
    "RunCondition",
    "Submitted",
    "WorkflowCondition",
]

# --------------------------------------------------------------------------- conditions


@attrs.frozen(kw_only=True)
class Condition:
    """Decides whether an action fires. Use one of the two subclasses."""

    #: What the condition waits for, in words; shown when a workflow is stuck.
    description: str
    #: Whether it looks at the clock or at anything outside the workflow's own databases. Such a
    #: condition is evaluated on every tick (``poll_interval``), and keeps a workflow alive in which
    #: nothing else can happen.
    outside: bool = False


@attrs.frozen(kw_only=True)
class RunCondition(Condition):
    """Selects tasks: those that meet every constraint and the filter.

    The engine evaluates it for the runs that changed, with a full sweep now and then for filters that
    look at something else.

    :param constraints: constraint strings; all must hold.
    :param filter: ``filter(run, job) -> bool``, called for the runs that meet the constraints.
    """

    constraints: tuple[str, ...] = ()
    filter: Callable[[Any, Any], Any] | None = None


@attrs.frozen(kw_only=True)
class WorkflowCondition(Condition):
    """Looks at a whole study, the whole workflow, or beyond.

    :param evaluate: ``evaluate(workflow, task_manager)``; answers a truth value, or a selection of
        ``(run, job)`` pairs. It is called when something in the workflow changed, and on every tick.
    """

    evaluate: Callable[[Workflow, TaskManager], Any]


# --------------------------------------------------------------------------- observations


@attrs.frozen(kw_only=True)
class Firing:
    """One execution of an action's callback for one trigger."""

    event_name: str
    task_manager: str
    #: References of the tasks in the trigger, such as ``("add.1", "add.2")``; empty for a boolean.
    runs: tuple[str, ...]
    #: 1 for the first call, more after conflicts.
    attempt: int = 1


@attrs.frozen(kw_only=True)
class RunChange:
    """A run that appeared, changed or went away.

    :param before: state before the change, None for a new run.
    :param after: state after the change, None for a deleted run.
    """

    run_id: int
    before: str | None
    after: str | None


# --------------------------------------------------------------------------- generators


@attrs.frozen(kw_only=True)
class LaunchTask:
    """A run whose directory is written, ready for a generator.

    :param tag: unique in the world and stable over restarts of the launcher.
    :param task: reference for messages, such as ``add.3``.
    :param directory: the run directory, absolute.
    :param script: the script's file name in that directory.
    :param nproc: number of processors that the run asks for.
    :param options: the run's own entries, such as ``slurm_options``, for generators that read some.
    """

    tag: str
    task: str
    run_id: int
    run_name: str
    directory: Path
    script: str
    nproc: int = 1
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Submitted:
    """What became of one submission.

    :param handle: what the generator needs to find the job again after a restart; plain data
        (what JSON can hold), stored with the run. None if the submission failed.
    :param error: why the submission failed.
    """

    tag: str
    handle: Mapping[str, Any] | None = None
    error: str | None = None


@attrs.frozen(kw_only=True)
class Ended:
    """A job that is over.

    :param exit_code: the script's exit code; negative for a signal (``-9``); None if unknown.
    :param reason: for a failure: EXIT_CODE, SIGNAL, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED,
        CANCELLED or LOST. None: deduced from the exit code.
    """

    tag: str
    exit_code: int | None
    reason: str | None = None


class JobGenerator(ABC):
    """Turns prepared runs into processes or scheduler jobs.

    One instance serves one launcher, inside that launcher's event loop.
    """

    #: State that a run gets before it is submitted.
    launched_state: ClassVar[str] = "launched"
    #: attrs class that validates ``<name>_options`` of motoko.yaml.
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any) -> None:
        """:param options: an instance of :attr:`Options`."""
        self.options = options

    def room(self) -> int | None:
        """How many processors' worth of runs may be submitted now; None for no limit."""
        return None

    @abstractmethod
    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Start the jobs; one answer per task, in the order of ``batch``. Never raises for one task."""

    @abstractmethod
    async def adopt(self, task: LaunchTask, handle: Mapping[str, Any] | None) -> bool:
        """Follow a job that an earlier launcher submitted; False if it is nowhere to be found."""

    @abstractmethod
    def ended(self) -> AsyncIterator[Ended]:
        """Yield the jobs that end, as they end, for ever."""

    @abstractmethod
    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop these jobs: politely first, by force after ``grace_s`` seconds."""


# --------------------------------------------------------------------------- error handlers


@attrs.frozen(kw_only=True)
class Failure:
    """Why a run failed.

    :param task: reference such as ``add.3``.
    :param task_manager: name of the task manager.
    :param state: the run's state, FAILED or another failure.
    :param reason: EXIT_CODE, SIGNAL, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, CANCELLED, LOST,
        SUBMIT, or UNKNOWN when something else than Motoko's launcher wrote the state.
    :param attempt: 1 for the first execution.
    :param stderr: the end of the run's standard error.
    """

    task: str
    task_manager: str
    run_id: int
    state: str
    reason: str = "UNKNOWN"
    exit_code: int | None = None
    attempt: int = 1
    stderr: str = ""
    directory: str | None = None


@attrs.frozen(kw_only=True)
class Retry:
    """Execute the run again after ``delay_s`` seconds, with changed run entries."""

    delay_s: float = 0.0
    changes: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Ignore:
    """Leave the run failed; whoever awaits it goes on."""


@attrs.frozen
class Abort:
    """End the workflow with an error."""

    message: str = ""


#: An error handler's answer; None means "not mine": the next handler is asked.
Decision: TypeAlias = Retry | Ignore | Abort | None


class ErrorHandler(ABC):
    """Decides what becomes of a failed run. Keyword arguments of ``__init__`` are its settings."""

    @abstractmethod
    def decide(self, failure: Failure) -> Decision:
        """Answer for one failed run; must not block."""


# --------------------------------------------------------------------------- command line


@attrs.frozen(kw_only=True)
class CliCommand:
    """A sub-command of ``motoko``.

    :param configure: adds the arguments to the command's parser.
    :param run: does the work and answers the exit code.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
