"""Tasks as a table."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas
import pytest

from motoko_core.errors import StaleObjectError
from motoko_core.session import Session, transact, use
from motoko_core.study.constraints import Names
from motoko_core.study.table import Header, Row
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state

NOW = datetime.datetime(2026, 1, 2)


def table(workflow: Workflow, constraints: str | None = None) -> pandas.DataFrame:
    return transact("the test", workflow.mult.select(constraints).to_dataframe)


def test_table_has_parameters_entries_attributes_and_quantities(workflow: Workflow, tmp_path: Path) -> None:
    first, second = create_tasks(workflow, x=[1.5, 2.5], n=3, run_params={"note": "it"})

    def work() -> None:
        ((run,),) = workflow.get_runs([first]).values()
        run["run_path"] = str(tmp_path)
        run.Y = [1, 2]
        run.pushQuantity(4.5, 0, "energy")
        run.start()
        run.finish()

    transact("the test", work)
    frame = table(workflow)
    assert [f"mult.{run_id}" for run_id in frame.index] == [first, second]
    assert frame.index.name == "id"
    assert list(frame.columns[:9]) == ["job_id", "run_name", "state", "x", "n", "label", "items", "note", "y"]
    assert frame["state"].tolist() == ["FINISHED", "CREATED"]
    assert frame["x"].tolist() == [1.5, 2.5]
    assert frame["y"].iloc[0] == [1, 2]
    assert frame["energy"].iloc[0] == 4.5
    assert frame[["y", "energy", "start_time"]].iloc[1].isna().all()
    assert len(table(workflow, "state = FINISHED")) == 1


def test_columns_have_the_types_of_their_values(workflow: Workflow) -> None:
    first, _ = create_tasks(workflow, x=[1.0, 2.0], n=3, run_params={"whole": 2**70})
    gaps = {"count": 1, "good": True, "mixed": 1.5, "words": {"a": 1}}
    set_state(workflow, first, "START", start_time=NOW, **gaps)
    frame = table(workflow)
    found = {name: str(frame[name].dtype) for name in ("job_id", "x", "n", "start_time", "last_step")}
    assert found == {
        "job_id": "int64",
        "x": "float64",
        "n": "int64",
        "start_time": "datetime64[ns]",
        "last_step": "Int64",
    }
    assert str(frame["count"].dtype) == "Int64"
    assert str(frame["good"].dtype) == "boolean"
    assert str(frame["mixed"].dtype) == "float64"
    assert frame["whole"].tolist() == [2**70] * 2
    assert frame["words"].iloc[0] == {"a": 1}
    assert frame["state"].tolist() == ["START", "CREATED"]


def test_table_without_tasks_has_columns(workflow: Workflow) -> None:
    frame = table(workflow)
    assert len(frame) == 0
    assert {"state", "x", "note"} <= set(frame.columns)
    assert str(frame["x"].dtype) == "float64"


def test_table_shows_what_the_session_has_changed_and_created(workflow: Workflow) -> None:
    create_tasks(workflow, x=1.0)
    with use(Session("it")):
        ((run, _),) = workflow.mult.select()
        run.state = "FORWARDED"
        created = workflow.mult.createTask(x=[3.0, 2.0])
        assert workflow.mult.select().to_dataframe()["x"].tolist() == [1.0, 3.0, 2.0]
        assert workflow.mult.select().to_dataframe()["state"].iloc[0] == "FORWARDED"
        assert created.to_dataframe()["x"].tolist() == [3.0, 2.0]
    with pytest.raises(StaleObjectError):
        created.to_dataframe()


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        (Row({"x": 1}, {"x": 2}, {"x": 3}), ["id", "jobs.x", "runs.x", "quantities.x", "state"]),
        (Row({"x": 1}, {"y": 2}, {"b": 3, "a": 4}), ["id", "x", "y", "a", "b", "state"]),
        (Row({"id": 1, "task": 2}, {"id": 1}, {"id": 3}), ["id", "jobs.task", "quantities.id", "state"]),
        (Row({"x": 1}, {"x": None, "t": None}, {}), ["id", "x", "state"]),
        (Row({"state": 1}, {"exec": 1}, {}), ["id", "runs.state", "jobs.state", "exec"]),
    ],
)
def test_names_that_several_have_are_told_apart(row: Row, labels: list[str]) -> None:
    header = Header(Names(jobs={"id": int}, runs={"id": int, "state": str}))
    assert header.take(row) is row
    found = [column.label for column in header.columns()]
    assert sorted(found) == sorted(labels)
    values: dict[str, Any] = {column.label: column.of(row) for column in header.columns()}
    if "jobs.x" in values:
        assert (values["jobs.x"], values["runs.x"], values["quantities.x"]) == (1, 2, 3)
