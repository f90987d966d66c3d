"""Every exception that Motoko raises on purpose.

An error is part of the interface: it says what went wrong and where, what was given, and what to do
next. The command line prints ``str(error)`` and leaves with ``error.exit_code``; the traceback is shown
only with ``--verbose``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that helps with a misspelt ``name``: the nearest known name, and all of them."""
    names = sorted(set(known))
    if not names:
        return "There is none to choose from."
    listing = "Known: " + ", ".join(names) + "."
    close = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    if not close:
        return listing
    match = next(n for n in names if n.lower() == close[0])
    return f"Did you mean {match!r}? {listing}"


class MotokoError(Exception):
    """Base of all errors.

    :param message: what went wrong, with the value that was given.
    :param where: the place: a file with its line, a run, an action.
    :param hint: what would be right, or the next command to type.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class ConfigError(MotokoError):
    """Something that the user wrote cannot work: a file, a name, a registration."""

    exit_code = 2


class ConstraintError(ConfigError):
    """A constraint does not parse, or names an entry that does not exist."""


class PluginError(ConfigError):
    """A plugin is missing, broken, or two of them claim the same name."""


class StudyError(MotokoError):
    """A study's database or its server is missing, unreachable or not what was expected."""


class DatabaseFault(StudyError):
    """A database's file, directory or disk cannot be used as it is: somebody has to mend it."""

    exit_code = 2


class TaskError(MotokoError):
    """``createTask`` was given something that it cannot store, or a run reference leads nowhere."""


class StaleObjectError(MotokoError):
    """A run or a job was used after the session that handed it out had ended."""


class ConflictRetriesExceeded(MotokoError):
    """Other transactions kept changing the same objects until the retries were used up."""


class AlreadyRunning(MotokoError):
    """A second orchestrator or launcher was started where one is at work."""


class RunFailed(MotokoError):
    """A task that somebody awaits has failed for good.

    :param failures: one line per failed run: its reference, state, reason and the end of its stderr.
    """

    def __init__(self, failures: Sequence[str], *, hint: str | None = None) -> None:
        count = len(failures)
        head = "a task failed" if count == 1 else f"{count} tasks failed"
        super().__init__(f"{head}: " + "\n".join(failures), hint=hint)
        self.failures = list(failures)


class ActionError(MotokoError):
    """User code (``main``, a condition, a callback) raised; the original exception is the ``__cause__``."""


class WorkflowAborted(MotokoError):
    """An error handler ended the workflow."""


class WorkflowStalled(MotokoError):
    """Nothing can happen any more, although the workflow is not finished."""
