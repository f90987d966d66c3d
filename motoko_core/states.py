"""Run states: which of them are under way, and which are failures.

The names are BlackDynamite's (``run_zeo.py`` and the coats of version 1.3.9), plus those that user code
sets for itself, such as ``FORWARDED``: a state that is not listed here counts as settled, because only
user code can have written it.
"""

from __future__ import annotations

from typing import Any

CREATED = "CREATED"
TOBELAUNCHED = "TOBELAUNCHED"
LAUNCHED = "launched"
START = "START"
FINISHED = "FINISHED"
FAILED = "FAILED"
FAILURE = "FAILURE"

#: States of a run that waits for a launcher, or that a launcher or a scheduler has in hand.
ACTIVE = frozenset({CREATED, TOBELAUNCHED, LAUNCHED, START, "SLURM submit", "PBS submit", "SGE submit"})

#: States that say that the execution went wrong. The last six are what the signal traps in BlackDynamite's
#: scripts for schedulers write.
FAILURES = frozenset(
    {
        *(FAILED, FAILURE, "SLURM killed", "SLURM stopped"),
        *("PBS killed", "PBS stopped", "SGE killed", "SGE stopped"),
    }
)


def is_active(state: Any) -> bool:
    """Whether a run in ``state`` can still change without anybody's help; what is no text is user code's."""
    return state is None or (isinstance(state, str) and state in ACTIVE)


def is_failure(state: Any) -> bool:
    """Whether ``state`` says that the run failed."""
    return isinstance(state, str) and state in FAILURES
