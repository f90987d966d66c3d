"""The jobs that a generator answers for, and what can be told of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum

import attrs

from motoko_core.interfaces import (
    NOBODY,
    Ended,
    ExitRecord,
    LaunchTask,
    read_exit_record,
)
from motoko_plugins.generators._records import forbid
from motoko_plugins.generators._scheduler import Phase, Request, Seen


class Stage(Enum):
    """How far a job's submission has come."""

    #: It is to be submitted; certainly nothing of it is under way.
    PLANNED = "planned"
    #: The submitting program is at work.
    SUBMITTING = "submitting"
    #: Nobody knows whether it was submitted.
    UNCLEAR = "unclear"
    #: The scheduler has it, or had.
    KNOWN = "known"


@attrs.define(eq=False, kw_only=True)
class Job:
    """One entry of the scheduler's queue: an array element, or a job that is no array.

    :param tasks: the runs that have not ended, in the order in which the job executes them.
    :param request: what it asks for; None: the run's options are wrong by now.
    :param job_ids: what the scheduler calls it; several if it was submitted twice.
    :param since: when it came to its stage, in the loop's time.
    :param missing_since: when the scheduler first did not know it.
    :param waits: whether it was waiting when the scheduler knew it last.
    :param was_dropped: it was, and the scheduler still knew others of its name when it first did not know it.
    :param over_since: when the scheduler first said that it is over.
    :param has_begun: whether a run of it has begun.
    :param passed: tags of runs after which others have begun.
    :param noticed: tags of runs that have failed, as their records say, while the scheduler is asked why.
    :param undecided: tag of a run that neither has a record nor can be kept from getting one -> since when.
    :param unread_since: when its records could first not be read.
    :param cancelled: tags of runs under way that are being cancelled.
    :param unwanted: tags of runs that are being kept from beginning because they are to be cancelled.
    :param kills: whether the job is to be cancelled, as soon as there is one.
    :param killed_at: when that was asked for.
    :param refusal: why the last submission failed.
    :param answer: resolved when the first submission has been tried, while somebody waits for it.
    :param error: why it was refused, for whoever waits.
    """

    name: str
    index: int
    request: Request | None
    tasks: list[LaunchTask] = attrs.field(factory=list)
    stage: Stage = Stage.PLANNED
    job_ids: set[str] = attrs.field(factory=set)
    since: float = 0.0
    missing_since: float | None = None
    waits: bool = False
    was_dropped: bool = False
    over_since: float | None = None
    has_begun: bool = False
    passed: set[str] = attrs.field(factory=set)
    noticed: set[str] = attrs.field(factory=set)
    undecided: dict[str, float] = attrs.field(factory=dict)
    unread_since: float | None = None
    word: str = ""
    cancelled: set[str] = attrs.field(factory=set)
    unwanted: set[str] = attrs.field(factory=set)
    kills: bool = False
    killed_at: float = float("-inf")
    refusal: str = ""
    answer: asyncio.Future[None] | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What finds it in the scheduler's queue."""
        return self.name, self.index

    @property
    def is_submitted(self) -> bool:
        """Whether the scheduler may have it."""
        return self.stage in (Stage.UNCLEAR, Stage.KNOWN)

    def resolve(self) -> None:
        """Tell who waits that the first submission has been tried."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)


def read_records(tasks: Sequence[LaunchTask], *, everything: bool = False) -> dict[str, ExitRecord]:
    """Read the exit records of one job's runs, up to the first that has not ended.

    :param everything: read all; and have a network file system look afresh.
    :raises OSError: one cannot be read now.
    """
    found = {}
    for task in tasks:
        if everything:
            try:
                os.scandir(task.directory).close()
            except (FileNotFoundError, NotADirectoryError):
                continue
        record = read_exit_record(task.directory, task.tag)
        if record is not None:
            found[task.tag] = record
        if not everything and (record is None or record.exit_code is None):
            break
    return found


def is_forbidden(record: ExitRecord | None) -> bool:
    """Whether a run never begins: the launcher that made sure of that ended before it said why."""
    return record is not None and record.job == NOBODY


def any_begun(tasks: Iterable[LaunchTask], records: Mapping[str, ExitRecord]) -> bool:
    """Whether one of these runs has."""
    found = [records[task.tag] for task in tasks if task.tag in records]
    return any(not is_forbidden(record) for record in found)


def end_of(
    tag: str, *, record: ExitRecord | None, seen: Seen | None, is_cancelled: bool = False, message: str = ""
) -> Ended:
    """Join what the record and the scheduler say of a run that is over.

    The run's own word counts most: a script that ended with 0 has succeeded, whatever became of its job.
    """
    code = record.exit_code if record else None
    if is_forbidden(record) and not is_cancelled:
        return Ended(tag=tag, exit_code=None, again=True, message=message)
    if is_cancelled:
        code = None if is_forbidden(record) else code
        return Ended(tag=tag, exit_code=code, reason="CANCELLED", message=message)
    if code == 0 or seen is None:
        reason = "LOST" if code is None else ("SIGNAL" if code < 0 else None)
        return Ended(tag=tag, exit_code=code, reason=reason, message=message)
    if seen.reason is not None:
        return Ended(tag=tag, exit_code=code, reason=seen.reason, message=message)
    code = seen.exit_code if code is None else code
    reason = "LOST" if code is None else ("SIGNAL" if code < 0 else None)
    return Ended(tag=tag, exit_code=code, reason=reason, message=message)


def which(entries: Iterable[Seen], record: ExitRecord | None) -> Seen | None:
    """Of several jobs of one name, the one that executes a run; if none has begun, one that still may.

    None: the scheduler does not know the job that executed it.
    """
    found = list(entries)
    if record is not None:
        return next((entry for entry in found if entry.record_job == record.job), None)
    return next((entry for entry in found if entry.phase is not Phase.OVER), found[0] if found else None)


def never_begins(task: LaunchTask) -> bool:
    """Whether an earlier launcher has kept a run from beginning."""
    with suppress(OSError):
        return is_forbidden(read_exit_record(task.directory, task.tag))
    return False


def keep_from_beginning(
    jobs: Sequence[Sequence[LaunchTask]], wanted: Set[str]
) -> tuple[dict[str, bool | None], set[str]]:
    """Keep runs from beginning; of a job with one that has begun already, all the others, too.

    :param jobs: the runs of each job, in their order.
    :return: wanted tag -> True: it never begins; False: it has begun; None: it has ended. And the others that
        never begin.
    """
    blocked: dict[str, bool | None] = {}
    kept: set[str] = set()
    for tasks in jobs:
        stopped = {task.tag: _block(task) for task in tasks if task.tag in wanted}
        blocked.update(stopped)
        if False in stopped.values():
            kept.update(task.tag for task in tasks if task.tag not in wanted and forbid(task))
    return blocked, kept


def _block(task: LaunchTask) -> bool | None:
    if forbid(task):
        return True
    with suppress(OSError):
        record = read_exit_record(task.directory, task.tag)
        return None if record is not None and record.exit_code is not None else False
    return False
