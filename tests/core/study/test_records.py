"""Jobs and runs as they are stored."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoko_core import lifecycle
from motoko_core.errors import TaskError
from motoko_core.session import Session, use
from motoko_core.study.records import Points, _canonical, convert
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks

NOW = datetime.datetime(2026, 1, 2)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, float, 1.0),
        (2.0, int, 2),
        (1, complex, 1 + 0j),
        (1, bool, True),
        (False, bool, False),
        ((1, 2), list, [1, 2]),
        ({"a": 1}, dict, {"a": 1}),
        ("a", str, "a"),
        (NOW, datetime.datetime, NOW),
        (None, int, None),
        ("anything", None, "anything"),
    ],
)
def test_value_is_converted(value: Any, wanted: Any, expected: Any) -> None:
    found = convert(value, wanted, "x", study="it")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(2, bool), ("yes", bool), ("2026-01-02", datetime.datetime), ([1], dict), (1j, float), ("a", complex)],
)
def test_value_of_another_type_is_refused(value: Any, wanted: Any) -> None:
    with pytest.raises(
        TaskError, match=f"parameter 'x' of study 'it' is declared as {wanted.__name__}, but was given"
    ):
        convert(value, wanted, "x", study="it")


def test_converted_value_is_a_copy() -> None:
    value = {"a": [1]}
    found = convert(value, None, "x", study="it")
    value["a"].append(2)
    assert found == {"a": [1]}


def test_points_are_in_the_order_of_the_parameters() -> None:
    found = list(Points({"n": [1, 2], "x": [3, 4]}, {"x": float, "n": int}, study="it"))
    assert [(point["n"], point["x"]) for point in found] == [(1, 3.0), (1, 4.0), (2, 3.0), (2, 4.0)]
    assert list(Points({"n": []}, {"n": int}, study="it")) == []
    assert list(Points({}, {"n": int}, study="it")) == [{}]


VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_identity_is_equality(one: Any, other: Any) -> None:
    assert (_canonical(one) == _canonical(other)) == (one == other)


def test_configuration_files_are_stored_once(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    create_tasks(workflow, x=2)
    path = Path(workflow.mult.study_dir) / "launch.sh"
    text = path.read_text()
    path.write_text(text + "# changed\n")
    create_tasks(workflow, x=3)
    path.write_text(text)
    with use(Session("it")):
        first, second, third = (run for run, _ in workflow.mult.select())
        assert first.exec == second.exec != third.exec
        assert sorted(first.configfiles) == sorted(second.configfiles)
        stored = workflow.mult.base.configfiles
        assert stored[third.exec].file.endswith("# changed\n")
        assert stored[first.exec].file == text


def test_types_are_shared_with_the_study(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)
    with use(Session("it")):
        ((run, job),) = workflow.mult.select()
        data = workflow.mult.base.data
        assert run.types is data["run_desc"].types
        assert job.types is data["job_desc"].types


def test_job_knows_its_runs(workflow: Workflow) -> None:
    create_tasks(workflow, x=661)
    create_tasks(workflow, run_params={"note": "b"}, x=661)
    with use(Session("it")):
        found = list(workflow.mult.select())
        job = found[0][1]
        assert sorted(job.runs.entries) == [run.id for run, _ in found]


def test_blackdynamites_index_can_always_be_searched(make_workflow: Callable[..., Workflow]) -> None:
    """Its keys are values without names: such that Python cannot compare would break every look-up."""
    yaml = "task_managers: {mult: }\norchestrator: orchestrator.main\n"
    workflow = make_workflow(studies=("mult",), yaml=yaml)
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    create_tasks(workflow, label="comes first")
    full: dict[str, Any] = {"x": 1, "n": 991, "label": "a", "items": [1]}
    create_tasks(workflow, **full)
    create_tasks(workflow, label="only a label")
    create_tasks(workflow, x=1)
    create_tasks(workflow, **{**full, "label": None})
    with use(Session("it")):
        base = workflow.mult.base
        base._become_singleton()
        job = base.Job()
        for name, value in full.items():
            job[name] = value
        (found,) = base.select(job, job)
        assert found.n == 991
