"""What the exit records of runs say, where the run directories may be out of reach."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterable
from contextlib import suppress

from motoko_core.interfaces import (
    LaunchTask,
    end_execution,
    exit_record_path,
    forbid_execution,
    read_exit_record,
)

log = logging.getLogger(__name__)


def forbid(task: LaunchTask) -> bool:
    """Make sure that a run never begins under this tag; False: it has begun, or nobody can tell.

    A job that appears after all, or was submitted twice, finds the record and does not execute the run.
    """
    try:
        return forbid_execution(task.directory, task.tag)
    except OSError as error:
        log.warning(
            "the run directory of %s is out of reach: %s: %s", task.task, error.strerror, task.directory
        )
        return False


def close_records(tasks: Iterable[LaunchTask]) -> None:
    """Make sure that runs which have ended are not executed again under their tags."""
    for task in tasks:
        try:
            end_execution(task.directory, task.tag)
        except OSError as error:
            why = f"{error.strerror}: {task.directory}"
            log.warning("a job that is started again may execute %s again: %s", task.task, why)


def has_begun(task: LaunchTask) -> bool | None:
    """Whether somebody has begun to execute a run; None: nobody can tell now."""
    try:
        return read_exit_record(task.directory, task.tag) is not None
    except OSError:
        return None


def is_locked(task: LaunchTask) -> bool:
    """Whether the spawner that has begun a run is at work, on this machine, perhaps in another container."""
    with suppress(FileNotFoundError), exit_record_path(task.directory, task.tag).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # no locks on some systems
                raise
    return False
