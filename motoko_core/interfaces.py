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

from motoko_core.exit_record import (
    EXECUTE,
    NOBODY,
    OVER,
    TAG_VARIABLE,
    ExitRecord,
    end_execution,
    exit_record_path,
    forbid_execution,
    read_exit_record,
)

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

__all__ = [
    "EXECUTE",
    "NOBODY",
    "OVER",
    "TAG_VARIABLE",
    "Abort",
    "CliCommand",
    "Condition",
    "Decision",
    "Ended",
    "ErrorHandler",
    "ExitRecord",
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
    "end_execution",
    "exit_record_path",
    "forbid_execution",
    "read_exit_record",
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

    :param tag: names this execution: unique in the world, and stable over restarts of the launcher. It begins
        with ``motoko-`` and holds letters, digits, ``_`` and ``-`` only.
    :param task: reference for messages, such as ``add.3``.
    :param directory: the run directory, absolute.
    :param script: the script's file name in that directory; bash executes it there.
    :param nproc: number of processors that the run asks for.
    :param options: the run's own entries, such as ``slurm_options``, for generators that read some.
    :param settings: the generator's options as the run's task manager has them, an instance of the
        generator's ``Options``; None: as the generator got them.
    """

    tag: str
    task: str
    run_id: int
    run_name: str
    directory: Path
    script: str
    nproc: int = 1
    options: Mapping[str, Any] = attrs.field(factory=dict)
    settings: Any = None

    @property
    def stdout(self) -> Path:
        """Where the run's standard output belongs, under the name that BlackDynamite gives it."""
        return self.directory / f"{self.run_name.replace('/', '_')}.o{self.run_id}"

    @property
    def stderr(self) -> Path:
        """Where the run's standard error belongs."""
        return self.directory / f"{self.run_name.replace('/', '_')}.e{self.run_id}"


@attrs.frozen(kw_only=True)
class Submitted:
    """What became of one submission.

    :param handle: the generator answers for the job from now on, until it reports its end. It holds what
        finds the job again after a restart; plain data (what JSON can hold), stored with the run. None: the
        submission failed, and certainly nothing of it will ever run.
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
        CANCELLED, LOST or SUBMIT. None: deduced from the exit code.
    :param message: what else is known, such as the scheduler's own words; told with the failure.
    :param again: this says nothing of the run, which waits for a launcher again: its job was over before it
        began, say, and it never begins under this tag. The exit code and the reason are None then.
    """

    tag: str
    exit_code: int | None
    reason: str | None = None
    message: str = ""
    again: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the script ended by itself, with the exit code 0."""
        return self.exit_code == 0 and self.reason is None


class JobGenerator(ABC):
    """Turns prepared runs into processes or scheduler jobs.

    One instance serves one launcher, inside that launcher's event loop. What it must keep to is tested by
    :mod:`motoko_core.testing`.
    """

    #: State that a run gets before it is submitted.
    launched_state: ClassVar[str] = "launched"
    #: Whether the jobs are processes on the launcher's machine; ``motoko kill`` stops those.
    on_this_machine: ClassVar[bool] = False
    #: Whether one job may execute several runs. Who stops some of them, then answers for the others as well.
    shares_jobs: ClassVar[bool] = False
    #: attrs class that validates ``<name>_options`` of motoko.yaml: ``Options(**mapping)``, or
    #: ``Options.from_strings(list)``, where of an option given twice the later one counts. Fields with
    #: ``metadata={"shared": True}`` hold for all that a launcher executes; task managers cannot change them.
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any) -> None:
        """:param options: an instance of :attr:`Options`."""
        self.options = options

    def room(self) -> int | None:
        """How many more runs it takes now; None for no limit."""
        return None

    def intents(self, batch: Sequence[LaunchTask]) -> Sequence[Mapping[str, Any]]:
        """What finds the jobs again if the launcher dies while :meth:`submit` is under way.

        Asked before :meth:`submit`, with the same batch or more; one answer per task, in its order, stored as
        the handle until there is another one.
        """
        return [{} for _ in batch]

    @abstractmethod
    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Start the jobs; one answer per task, in the order of ``batch``. Never raises for one task.

        Returns soon: other studies' runs wait meanwhile. Whoever must wait for a scheduler (to find out
        whether an unclear submission has succeeded, or for a controller that is down) answers with a handle,
        goes on in the background and reports what can never run as ended, with the reason SUBMIT.
        """

    @abstractmethod
    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Answer for jobs of an earlier launcher, given with the handles that were stored.

        :return: the tags that may have been submitted: they are followed, whatever has become of them, and
            reported when they have ended, those that are nowhere to be found as LOST. The others certainly
            never start; their runs wait for a launcher again.
        """

    @abstractmethod
    def ended(self) -> AsyncIterator[Ended]:
        """Yield the jobs that end, as they end, for ever."""

    @abstractmethod
    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Stop these jobs: politely first, by force after ``grace_s`` seconds.

        Their ends are reported with the reason CANCELLED; tags that are not followed are ignored. Runs that
        only end because they share a job with these are reported with ``again``.
        """

    async def close(self) -> None:  # noqa: B027 - most generators have nothing to let go of
        """Stop following; the jobs go on, and another launcher can adopt them."""


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
    :param stderr: the end of the run's standard error, and what the scheduler said.
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
