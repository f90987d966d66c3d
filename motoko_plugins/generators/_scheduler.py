"""What a batch scheduler is to Motoko: texts, commands and how to read the answers.

A scheduler is described by pure functions, a subclass of :class:`Scheduler`; everything that takes time,
fails or must survive is in :mod:`~motoko_plugins.generators._scheduler_generator`, once for all of them.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Protocol

import attrs

from motoko_core.interfaces import LaunchTask


class Phase(Enum):
    """Where a scheduler has a job."""

    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"
    #: The scheduler said a word that nobody knows: the job is where it was.
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Seen:
    """One job as the scheduler tells of it: an array element, or a job that is no array.

    :param name: the job's name, which is Motoko's own and unique in the world.
    :param index: the element's index; None: it is no array.
    :param job_id: what the scheduler's commands call this element, such as ``12_3``.
    :param record_job: what this job calls itself in exit records.
    :param exit_code: of a job that is over: the job script's; ``-n`` for signal n; None if unknown.
    :param reason: why it is over, in the words of :class:`~motoko_core.interfaces.Ended`; None if the exit
        code tells.
    :param word: the scheduler's own word for the state, and what it says besides.
    """

    name: str
    index: int | None
    job_id: str
    record_job: str
    phase: Phase
    exit_code: int | None = None
    reason: str | None = None
    word: str = ""


class Refusal(Enum):
    """What a submission that failed means."""

    #: The scheduler will never take this job. Certainly nothing was submitted.
    PERMANENT = "permanent"
    #: Too many jobs for now, or else too large a one, where it does not tell which. Certainly nothing was
    #: submitted.
    LIMIT = "limit"
    #: The scheduler is out of reach. Perhaps it was submitted.
    UNREACHABLE = "unreachable"
    #: Nobody knows what happened.
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Request:
    """What the jobs of one submission have in common.

    :param options: the scheduler's directives, as its scripts have them, without the prefix.
    :param nproc: processors for each.
    :param modules: environment modules that each loads.
    :param runs_per_job: runs that each executes, one after another, at most.
    """

    options: tuple[str, ...] = ()
    nproc: int = 1
    modules: tuple[str, ...] = ()
    runs_per_job: int = 1


@attrs.frozen(kw_only=True)
class Submission:
    """What one call of the submitting program hands over.

    :param elements: index -> the runs that this element executes, one after another.
    """

    name: str
    request: Request
    elements: Mapping[int, Sequence[LaunchTask]]

    @property
    def is_array(self) -> bool:
        """A run alone, the first of its name, needs no array."""
        return list(self.elements) != [0]


class Settings(Protocol):
    """What every scheduler's ``Options`` have. Times in seconds."""

    @property
    def runs_per_job(self) -> int:
        """Runs that one job executes, one after another."""

    @property
    def max_jobs(self) -> int | None:
        """Jobs in the queue at once, an array's elements each."""

    @property
    def poll_interval_s(self) -> float:
        """How often the scheduler is asked."""

    @property
    def submit_timeout_s(self) -> float:
        """How long a command may take."""

    @property
    def lost_after_s(self) -> float:
        """How long a job must be unknown to count as lost."""

    @property
    def max_array_size(self) -> int | None:
        """Elements in one array; None: :meth:`Scheduler.limit_command` tells."""


class Scheduler(ABC):
    """The pure part of a generator: knows a scheduler's language, and neither time nor processes.

    :param settings: the generator's options, an instance of its ``Options``. What they must have stands in
        :class:`Settings`.
    """

    #: For messages: ``SLURM``.
    title: ClassVar[str]
    #: The program that submits; without it on the PATH the generator cannot work.
    submit_program: ClassVar[str]
    #: Whether the submitting program takes the script from a file only, which is its last argument then.
    script_is_file: ClassVar[bool] = False

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def new_name(self) -> str:
        """A name for one submission, unique in the world, which :meth:`parse_status` knows for ours."""
        return f"motoko-{uuid.uuid4().hex[:20]}"

    @abstractmethod
    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment for the scheduler's programs, and thereby for jobs, made of the jobs' own."""

    @abstractmethod
    def request(self, task: LaunchTask) -> Request:
        """What a run asks for: the generator's options, its task manager's and its own.

        :raises ConfigError: the run's own options are wrong.
        """

    @abstractmethod
    def script(self, submission: Submission) -> str:
        """The job script."""

    @abstractmethod
    def submit_command(self, submission: Submission) -> list[str]:
        """The command that submits; the script comes on its standard input."""

    @abstractmethod
    def submitted_id(self, output: str) -> str:
        """The job's id in the answer of :meth:`submit_command`; empty if there is none."""

    @abstractmethod
    def refusal(self, code: int | None, errors: str) -> Refusal:
        """What a submission means that ended with ``code`` (None: it was killed) and said ``errors``."""

    @abstractmethod
    def element_id(self, job_id: str, index: int, *, is_array: bool) -> str:
        """What the scheduler calls an element of a job: ``12_3``."""

    @abstractmethod
    def status_command(self) -> list[str]:
        """The command that tells of all jobs of this user, those that have just ended included."""

    def is_answer(self, code: int | None, output: str, errors: str) -> bool:
        """Whether the exit code of :meth:`status_command` or :meth:`history_command` promises an answer."""
        return code == 0

    @abstractmethod
    def parse_status(self, output: str) -> list[Seen]:
        """The answer of :meth:`status_command`; jobs that are not Motoko's are left out.

        :raises ValueError: this is no such answer.
        """

    def history_command(self, job_ids: Sequence[str]) -> list[str] | None:
        """The command that tells of jobs that the queue has forgotten; None if there is no such command.

        :param job_ids: as :meth:`element_id` gives them.
        """
        return None

    def parse_history(self, output: str) -> list[Seen]:
        """The answer of :meth:`history_command`; the index is the id's, names may be missing."""
        return []

    @abstractmethod
    def cancel_command(self, job_ids: Sequence[str], name: str | None = None) -> list[str]:
        """The command that ends jobs: politely first, then by force, in the scheduler's own time.

        :param name: leave alone what has one of these ids and another name, where the scheduler can.
        """

    def limit_command(self) -> list[str] | None:
        """The command that tells how large an array may be; None if it need not be asked."""
        return None

    def parse_limit(self, output: str) -> int | None:
        """Elements that an array may have, by the answer of :meth:`limit_command`; None: it is silent."""
        return None
