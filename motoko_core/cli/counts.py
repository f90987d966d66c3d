"""How many runs are in which state, as tables show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from motoko_core.cli.output import table
from motoko_core.states import CREATED, FAILED, FINISHED, LAUNCHED, START, TOBELAUNCHED, is_failure

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

#: State -> number of runs.
Counts = dict[str, int]
_ORDER = (CREATED, TOBELAUNCHED, LAUNCHED, START, FINISHED)


def by_run_name(runs: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """run_name -> state -> number of runs.

    :param runs: the entries of the runs.
    """
    found: dict[str, Counts] = {}
    for entries in runs:
        counts = found.setdefault(str(entries.get("run_name")), {})
        state = str(entries.get("state"))
        counts[state] = counts.get(state, 0) + 1
    return dict(sorted(found.items()))


def by_state(runs: Iterable[Mapping[str, Any]]) -> Counts:
    """State -> number of runs."""
    return dict(Counter(str(entries.get("state")) for entries in runs))


def of_run_name(manager: TaskManager, run_name: str | None) -> Counts:
    """State -> number of runs of one run_name."""
    index = manager.database.index
    index.refresh()
    return {str(state): count for state, count in index.states(run_name).items()}


def in_order(states: Iterable[str]) -> list[str]:
    """States in the order in which a run has them; failures last."""
    known = {state: place for place, state in enumerate(_ORDER)}

    def key(state: str) -> tuple[bool, int, bool, str]:
        return is_failure(state), known.get(state, len(known)), state != FAILED, state

    return sorted(states, key=key)


def in_words(counts: Mapping[str, int]) -> str:
    """Such as ``3 START, 12 FINISHED``."""
    return ", ".join(f"{counts[state]} {state}" for state in in_order(counts)) or "no runs"


def show(rows: Iterable[tuple[str, str, Counts]]) -> None:
    """Write a table of (study, run_name, counts); a study is one line, whatever the states are called."""
    table(
        ("study", "run_name", "runs", "states"),
        [(study, name, sum(counts.values()), in_words(counts)) for study, name, counts in rows],
    )
