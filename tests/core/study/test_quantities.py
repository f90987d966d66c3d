"""The last values of quantities, from files that BlackDynamite's own method has written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from motoko_core.session import transact
from motoko_core.study.plain_snapshot import record_of
from motoko_core.study.quantities import LastQuantities
from motoko_core.study.record import Record
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks


def run_with(**places: Any) -> Record:
    return Record(7, {}, {}, lambda: places)


def last(path: Path) -> Any:
    return LastQuantities(path.parent).of(run_with(it=path.name))["it"]


def test_last_values_are_what_was_pushed_last(workflow: Workflow, tmp_path: Path) -> None:
    (reference,) = create_tasks(workflow, x=1.0)

    def push() -> dict[str, Any]:
        ((run,),) = workflow.get_runs([reference]).values()
        run["run_path"] = str(tmp_path)
        for step in range(3):
            run.pushQuantity(step + 0.5, step, "energy")
            run.pushQuantity([float(step), 2.0], step, "position")
            run.pushQuantity([float(i) for i in range(1000)], step, "field")
            run.pushQuantity("good", step, "word")
        return LastQuantities(tmp_path).of(record_of(run.id, run))

    assert transact("the test", push) == {
        "energy": 2.5,
        "position": [2.0, 2.0],
        "field": [float(i) for i in range(1000)],
        "word": "good",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("step[int],it[float]", None),
        ("step[int],it[float]\n", None),
        ("step[int],it[float]\n0,1.5", None),
        ("step[int],it[float]\n0,1.5\n1,2", 1.5),
        ("step[int],it[float]\n0,1.5\n1,nothing\n", "nothing"),
        ("step[int],it[float]\n" + "1,2.5\n" * 5000 + "3,", 2.5),
        ("step[int],it[float]\n0,1.5\n" + "1," * 5000, 1.5),
    ],
)
def test_only_whole_lines_count(tmp_path: Path, text: str, expected: Any) -> None:
    path = tmp_path / "it.csv"
    path.write_text(text)
    assert last(path) == expected


def test_files_that_are_gone_leave_gaps_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantities = LastQuantities(tmp_path)
    assert quantities.of(run_with(gone="gone.csv", odd=None)) == {"gone": None, "odd": None}
    with caplog.at_level(logging.WARNING, "motoko"):
        quantities.report()
        quantities.report()
    (message,) = caplog.messages
    assert message.startswith("2 values are left empty")
    assert "gone of run 7" in message
