"""What is true of a study: what its data file holds, and what has to agree with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from motoko_core.workflow import Workflow

Row = Mapping[str, Any]

NAMES = ["one", "two"]
STATES = ["CREATED", "START", "FINISHED", "FAILED", "FORWARDED"]

#: Constraints, and what they mean for the values of a run and its job.
CONSTRAINTS: dict[str | None, Callable[[Row, Row], bool]] = {
    None: lambda run, job: True,
    "state = START": lambda run, job: run["state"] == "START",
    "state in (CREATED, FINISHED), run_name = two": lambda run, job: (
        run["state"] in ("CREATED", "FINISHED") and run["run_name"] == "two"
    ),
    "not state = CREATED or run_name = one": lambda run, job: (
        run["state"] != "CREATED" or run["run_name"] == "one"
    ),
    "runs.id in (1, 3, 40), state != START": lambda run, job: (
        run["id"] in (1, 3, 40) and run["state"] != "START"
    ),
    "x < 2, state ~ ^F": lambda run, job: job["x"] < 2 and run["state"].startswith("F"),
    "note = None": lambda run, job: run.get("note") is None,
    "note ~ a or mark > 1": lambda run, job: "a" in str(run.get("note") or "") or run.get("mark") == 1.5,
}


class Truth:
    """All runs and jobs as they are in the data file, read without a server, a client, or Motoko.

    :ivar rows: run id -> the values of the run and of its job.
    :ivar tid: the last transaction.
    """

    def __init__(self, data: Path) -> None:
        db = ZODB.DB(FileStorage(str(data), read_only=True, create=False))
        try:
            connection = db.open(transaction.TransactionManager())
            schema = next(iter(connection.root.schemas.entries.values())).entries
            jobs = {job_id: values(job) for job_id, job in schema["jobs"].entries.items()}
            runs = {run_id: values(run) for run_id, run in schema["runs"].entries.items()}
            self.rows = {run_id: (run, jobs[run["job_id"]]) for run_id, run in runs.items()}
            self.tid: bytes = db.storage.lastTransaction()
            connection.close()
        finally:
            db.close()


#: What BlackDynamite's own runs and jobs hold beside their entries; all else was set by somebody.
OWN = {"entries", "key_string", "optional", "types", "operators", "configfiles", "quantities", "runs"}


def values(obj: Any) -> dict[str, Any]:
    obj._p_activate()
    return {**{name: value for name, value in obj.__dict__.items() if name not in OWN}, **obj.entries}


def scalars(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, (list, dict))}


def check_groups(index: Any, rows: Mapping[int, Row]) -> None:
    """Counting and finding by state and run_name is what a look at every row gives."""
    for name in (None, *NAMES):
        counts: dict[Any, int] = {}
        for row in rows.values():
            if name in (None, row["run_name"]):
                counts[row["state"]] = counts.get(row["state"], 0) + 1
        assert index.states(name) == counts
        for state in STATES:
            assert index.candidates(None if name is None else frozenset({name}), frozenset({state})) == {
                run_id
                for run_id, row in rows.items()
                if row["state"] == state and name in (None, row["run_name"])
            }


def check_selections(workflow: Workflow, rows: Mapping[int, tuple[Row, Row]]) -> None:
    """Selections in the current session find what a look at every run finds, with the same values."""
    for name in (None, "one"):
        workflow.run_name = name
        for constraint, holds in CONSTRAINTS.items():
            selection = workflow.mult.select(constraint)
            expected = [
                run_id
                for run_id, (run, job) in sorted(rows.items())
                if name in (None, run["run_name"]) and holds(run, job)
            ]
            found = list(selection)
            assert [run.id for run, _ in found] == expected, constraint
            assert len(selection) == len(expected)
            assert bool(selection) is bool(expected)
    workflow.run_name = None
    for run, job in workflow.mult.select():
        assert (values(run), values(job)) == rows[run.id]
