"""What the entries of a run say of its execution, whatever scripts and users have written into them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeAlias

#: A text, not a mapping: when a script and the launcher change a run at the same time, the database merges
#: the changes only if all values of the run can be ordered.
HANDLE = "motoko_handle"
#: Set on a run that a launcher has in hand: it is to be cancelled. The tag of the execution that is meant.
CANCEL = "motoko_cancel"
#: Why the latest execution failed; a mapping with ``reason``, ``exit_code``, ``attempt``, ``stderr``, and
#: the ``tag`` of that execution.
FAILURE = "motoko_failure"
#: A run is not executed before this time, in seconds since the epoch.
NOT_BEFORE = "motoko_not_before"
#: Entries in which Motoko keeps how a run is executed. No parameter has such a name by accident.
OF_AN_EXECUTION = (HANDLE, FAILURE, NOT_BEFORE, CANCEL)


FailureIdentity: TypeAlias = tuple[int, str]


def handle_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """``tag``, ``generator`` (its name) and ``data`` that it has given; empty if no launcher has the run.

    What no launcher has written is no handle.
    """
    text = entries.get(HANDLE)
    if not text or not isinstance(text, str):
        return {}
    try:
        handle = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(handle, dict) or not handle.get("tag"):
        return {}
    kinds = {"tag": str, "generator": (str, NoneType), "data": (dict, NoneType)}
    return handle if all(isinstance(handle.get(name), kind) for name, kind in kinds.items()) else {}  # type: ignore[arg-type]


def state_of(entries: Mapping[str, Any]) -> str | None:
    """The state of a run; one that is no text counts as a state that user code has set."""
    state = entries.get("state")
    return state if state is None or isinstance(state, str) else repr(state)


def stopped(tag: str) -> str:
    """What ``CANCEL`` holds while a job is stopped whose run is to be executed again."""
    return f"stopped {tag}"


def stored_failure(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was told of a run's latest failure; what no launcher has written is none."""
    failure = entries.get(FAILURE)
    return failure if isinstance(failure, Mapping) else {}


def identity_of(entries: Mapping[str, Any]) -> FailureIdentity:
    """What tells the failure of a run from that of the next attempt, and from one after the run was reset."""
    failure = stored_failure(entries)
    # (While a job is there, its script has said that it failed; why is written when it has ended.)
    return failure.get("attempt", 1), tag_of(entries) or failure.get("tag", "")


def tag_of(entries: Mapping[str, Any]) -> str:
    """Names the execution that a run has, whatever its state says; empty: none.

    A script tells the state before it exits, and users and error handlers reset runs that are at work. Only
    a launcher that has heard of the end of the execution takes the handle away.
    """
    return str(handle_of(entries).get("tag", ""))
