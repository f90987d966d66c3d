"""Creating tasks: what becomes of the parameters, and when a task is the same task."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transaction

from motoko_core import lifecycle
from motoko_core.errors import TaskError
from motoko_core.session import Session, transact, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, states
from tests.processes import run_python


def points(workflow: Workflow, *names: str, **parameters: Any) -> list[Any]:
    """The values of the jobs that createTask makes; of one name, bare."""
    with use(Session("it")) as session:
        runs = workflow.mult.createTask(**parameters)
        session.commit()
        found = [tuple(job.entries.get(name) for name in names) for _, job in runs]
    return [point[0] for point in found] if len(names) == 1 else found


def entries(workflow: Workflow, *arguments: Any, **parameters: Any) -> dict[str, Any]:
    """The entries of the one run that createTask makes."""
    with use(Session("it")) as session:
        ((run, _),) = workflow.mult.createTask(*arguments, **parameters)
        session.commit()
        return dict(run.entries)


# ------------------------------------------------------------------ job parameters


def test_lists_span_the_space(workflow: Workflow) -> None:
    found = points(workflow, "x", "n", "label", x=[1, 2], n=[10, 20], label="a")
    assert found == [(x, n, "a") for x in (1.0, 2.0) for n in (10, 20)]


def test_list_is_the_value_of_a_list_parameter(workflow: Workflow) -> None:
    assert points(workflow, "items", items=[1, 2], x=[1, 2]) == [[1, 2], [1, 2]]
    assert points(workflow, "items", items=(3, "a")) == [[3, "a"]]


@pytest.mark.parametrize(
    "given",
    [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.array([1.0, 2.0]), [np.int64(1), np.float32(2)]],
)
def test_what_spans_the_space(workflow: Workflow, given: Any) -> None:
    found = points(workflow, "x", x=given)
    assert found == [1.0, 2.0]
    assert {type(value) for value in found} == {float}
    found = points(workflow, "n", n=given)
    assert found == [1, 2]
    assert {type(value) for value in found} == {int}


def test_scalars_of_numpy_are_stored_as_pythons(workflow: Workflow) -> None:
    assert [type(v) for v in points(workflow, "x", "n", x=np.float64(1), n=np.int32(2))[0]] == [float, int]
    assert type(points(workflow, "label", label=np.str_("a"))[0]) is str
    assert points(workflow, "items", items=np.array([[1, 2], [3, 4]])) == [[[1, 2], [3, 4]]]


def test_names_of_parameters_are_the_same_in_any_case(workflow: Workflow) -> None:
    assert points(workflow, "x", "n", X=1, N=2) == [(1.0, 2)]
    assert entries(workflow, {"NOTE": "a"}, x=1)["note"] == "a"


def test_none_leaves_a_parameter_open(workflow: Workflow) -> None:
    assert points(workflow, "x", "n", x=None, n=1) == [(None, 1)]


def test_stored_list_is_not_the_callers(workflow: Workflow) -> None:
    items = [1]

    def work() -> None:
        workflow.mult.createTask(items=items)
        items.append(2)

    transact("it", work)
    assert transact("look", lambda: [job.entries["items"] for _, job in workflow.mult.select()]) == [[1]]


def test_parameters_are_merged_over_those_of_bd_yaml(workflow: Workflow) -> None:
    path = Path(workflow.mult.study_dir) / "bd.yaml"
    text = path.read_text()
    path.write_text(
        text + "job_space:\n  X: [1, 2]\n  n: 5\n"
        "run_params:\n  note: usual\n  nproc: 2\n  options: {time: 10, mem: 1}\n"
    )
    try:
        other = Workflow(workflow.config_path)
    finally:
        path.write_text(text)
    other.run_name = workflow.run_name
    assert points(other, "x", "n") == [(1.0, 5), (2.0, 5)]
    assert points(other, "x", "n", x=3) == [(3.0, 5)]
    run = entries(other, {"options": {"mem": 2}, "note": "mine"}, x=4)
    assert (run["note"], run["nproc"], run["options"]) == ("mine", 2, {"time": 10, "mem": 2})
    assert entries(other, x=5)["options"] == {"time": 10, "mem": 1}
    lifecycle.disconnect(other)


# ------------------------------------------------------------------ what a run gets


def test_run_gets_what_motoko_promises(workflow: Workflow) -> None:
    run = entries(workflow, x=1)
    assert run["run_name"] == workflow.run_name
    assert run["workflow"] == workflow.config_path
    assert (run["state"], run["machine_name"], run["nproc"]) == ("CREATED", "localhost", 1)


def test_event_name_is_the_calling_function(workflow: Workflow) -> None:
    def refine() -> Any:
        runs = [workflow.mult.createTask(x=x) for x in (1, 2)]
        runs.append((lambda: workflow.mult.createTask(x=3))())
        return [run.event_name for ((run, _),) in runs]

    assert refine() == ["refine"] * 3


def test_commit_makes_the_task_visible_at_once(workflow: Workflow) -> None:
    with use(Session("it")):
        workflow.mult.createTask(x=1)
        workflow.mult.createTask(x=2, commit=True)
        workflow.mult.createTask(x=3)
        assert len(states(workflow)) == 2


# ------------------------------------------------------------------ the same task


def test_same_parameters_give_the_same_task(workflow: Workflow) -> None:
    with use(Session("it")) as session:
        first = workflow.mult.createTask({"note": "a"}, x=[1, 2], n=3)
        again = workflow.mult.createTask({"note": "a"}, n=3, x=[1, 2])
        assert [r.id for r, _ in first] == [r.id for r, _ in again]
        session.commit()
    assert len(create_tasks(workflow, run_params={"note": "a"}, x=[1, 2], n=3)) == 2
    assert len(states(workflow)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1}, {"x": np.float64(1)}),
        ({"n": 1}, {"n": 1.0}),
        ({"items": [1, {"a": 1, "b": 2}]}, {"items": (1.0, {"b": 2, "a": 1})}),
        ({"x": 0.0}, {"x": -0.0}),
        ({"X": 1}, {"x": 1}),
    ],
)
def test_equal_values_give_the_same_task(workflow: Workflow, one: Any, other: Any) -> None:
    assert create_tasks(workflow, **one) == create_tasks(workflow, **other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": 1}, {"x": 1, "n": 1}),
        ({"label": "1"}, {"label": "1 "}),
        ({"items": [1, 2]}, {"items": [2, 1]}),
        ({"items": [12]}, {"items": [1, 2]}),
        ({"items": ["1"]}, {"items": [1]}),
        ({"items": ["a,b"]}, {"items": ["a", "b"]}),
        ({"x": 1, "run_params": {"note": "a"}}, {"x": 1, "run_params": {"note": "b"}}),
        ({"x": 1, "run_params": {"nproc": 1}}, {"x": 1, "run_params": {"nproc": 2}}),
        ({"x": 1, "run_params": {"undeclared": 1}}, {"x": 1}),
    ],
)
def test_other_values_give_another_task(workflow: Workflow, one: Any, other: Any) -> None:
    assert create_tasks(workflow, **one) != create_tasks(workflow, **other)


def test_runs_with_other_parameters_share_the_job(workflow: Workflow) -> None:
    create_tasks(workflow, run_params={"note": "a"}, x=17)
    create_tasks(workflow, run_params={"note": "b"}, x=17)
    found = transact("look", lambda: [(r.id, j.id) for r, j in workflow.mult.select()])
    assert len({run for run, _ in found}) == 2
    assert len({job for _, job in found}) == 1


def test_another_run_name_gives_another_run_of_the_same_job(workflow: Workflow) -> None:
    (first,) = create_tasks(workflow, x=18)
    workflow.run_name = f"{workflow.run_name}-again"
    (second,) = create_tasks(workflow, x=18)
    assert first != second
    with use(Session("it")):
        one, two = workflow.get_runs([first, second])["mult"]
        assert one.job_id == two.job_id


def test_task_is_the_same_whatever_became_of_its_run(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)

    def change() -> None:
        ((run, _),) = workflow.mult.select()
        run.entries.update(
            {"state": "FINISHED", "run_path": "/there", "motoko_failure": {"attempt": 2}, "nproc": 4}
        )
        run.y = [1, 2]

    transact("it", change)
    assert create_tasks(workflow, x=1) == [reference]


def test_deleted_run_is_created_anew(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    (run_id,) = states(workflow)

    def delete() -> None:
        del workflow.mult.base.runs[run_id]

    transact("it", delete)
    (again,) = create_tasks(workflow, x=1)
    assert again != reference
    assert len(states(workflow)) == 1


def test_sessions_that_create_the_same_task_side_by_side_make_one(workflow: Workflow) -> None:
    with use(Session("first")):
        workflow.mult.createTask(x=1)
        with use(Session("second")) as second:
            workflow.mult.createTask(x=1)
            second.commit()
    assert len(create_tasks(workflow, x=1)) == 1
    assert len(states(workflow)) == 1


def test_ids_are_dense_from_one(make_workflow: Any) -> None:
    workflow = make_workflow(
        studies=("mult",), yaml="task_managers: {mult: }\norchestrator: orchestrator.main\n"
    )
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    assert create_tasks(workflow, x=[1, 2], run_params={"note": "a"}) == ["mult.1", "mult.2"]
    with use(Session("aborted")):
        workflow.mult.createTask(x=9)
    assert create_tasks(workflow, x=[2, 3], run_params={"note": "b"}) == ["mult.3", "mult.4"]
    with use(Session("it")):
        base = workflow.mult.base
        assert [list(base.runs.entries), list(base.jobs.entries)] == [[1, 2, 3, 4], [1, 2, 3]]
        assert (base.runs_counter, base.jobs_counter) == (5, 4)


# ------------------------------------------------------------------ with BlackDynamite

BY_BLACKDYNAMITE = """
    import sys, BlackDynamite as BD
    base = BD.Base(host="zeo://" + sys.argv[1], study="mult")
    job = base.Job()
    for name, value in {"x": 1.0, "n": 7, "label": "bd", "items": [1]}.items():
        job[name] = value
    found = base.select(job, job)
    job = found[0] if found else base.jobs[base.insert(job)]
    run = base.Run()
    run.setFields(["note = a"])
    run["run_name"], run["machine_name"], run["nproc"] = sys.argv[2], "localhost", 1
    run.addConfigFiles(sys.argv[1] + "/doIt.py")
    run.setExecFile(sys.argv[1] + "/launch.sh")
    print(job.id, run.attachToJob(job))
"""


def by_blackdynamite(workflow: Workflow) -> tuple[int, int]:
    study = workflow.mult.study_dir
    job_id, run_id = run_python(BY_BLACKDYNAMITE, study, workflow.run_name, cwd=study).split()[-2:]
    return int(job_id), int(run_id)


def test_task_that_blackdynamite_created_is_found(workflow: Workflow) -> None:
    create_tasks(workflow, x=5)
    job_id, run_id = by_blackdynamite(workflow)
    found = create_tasks(workflow, run_params={"note": "a"}, x=1, n=7, label="bd", items=[1])
    assert found == [f"mult.{run_id}"]
    (other,) = create_tasks(workflow, run_params={"note": "b"}, x=1, n=7, label="bd", items=[1])
    with use(Session("it")):
        assert workflow.get_runs([other])["mult"][0].job_id == job_id
    assert len(workflow.mult.select("label = bd")) == 2


def test_task_that_blackdynamite_created_after_ours_was_deleted_is_found(workflow: Workflow) -> None:
    same: dict[str, Any] = {"run_params": {"note": "a"}, "x": 1, "n": 7, "label": "bd", "items": [1]}
    create_tasks(workflow, **same)
    (ours,) = states(workflow)

    def delete() -> None:
        del workflow.mult.base.runs[ours]

    transact("it", delete)
    _, run_id = by_blackdynamite(workflow)
    assert create_tasks(workflow, **same) == [f"mult.{run_id}"]


def test_task_is_readable_by_blackdynamite(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, run_params={"note": "hello"}, x=1.5, n=2, items=[1, 2])
    script = """
        import sys, BlackDynamite as BD
        base = BD.Base(host="zeo://" + sys.argv[1], study="mult")
        run = base.runs[int(sys.argv[2])]
        selected = BD.RunSelector(base).selectRuns([f"run_name = {run.run_name}", "x > 1"], quiet=True)
        ((selected, job),) = selected
        assert selected.id == run.id and job.id == run.job_id
        print(run.note, run.state, job.x, job.n, job["items"], run.nproc)
        print(sorted(file.filename for file in run.getConfigFiles()), run.getExecFile().filename)
        print(run.getExecFile().file.splitlines()[0])
        print([r for r in base.jobs[job.id].runs] == [run.id])
        run.start()
    """
    study, run_id = workflow.mult.study_dir, reference.rpartition(".")[2]
    job_id = transact("look", lambda: workflow.get_runs([reference])["mult"][0].job_id)
    lines = run_python(script, study, run_id, cwd=study).splitlines()
    assert lines[-4:] == [
        "hello CREATED 1.5 2 [1, 2] 1",
        "['doIt.py', 'launch.sh'] launch.sh",
        f'echo "working on {job_id}"',  # a job's entries come first
        "True",
    ]
    assert states(workflow) == {int(run_id): "START"}


# ------------------------------------------------------------------ errors


def refused(workflow: Workflow, *arguments: Any, **parameters: Any) -> str:
    with use(Session("it")) as session:
        with pytest.raises(TaskError) as raised:
            workflow.mult.createTask(*arguments, **parameters)
        session.commit()
    assert states(workflow) == {}
    return str(raised.value)


@pytest.mark.parametrize("missing", [None, ""])
def test_run_name_is_required(workflow: Workflow, missing: str | None) -> None:
    name, workflow.run_name = workflow.run_name, missing
    with pytest.raises(TaskError, match="run_name is not set") as raised:
        workflow.mult.createTask(x=1)
    workflow.run_name = name
    assert "--run-name" in str(raised.value)


def test_run_name_is_the_beginning_of_names_of_files(workflow: Workflow) -> None:
    name, workflow.run_name = workflow.run_name, "a\0b"
    with pytest.raises(TaskError, match=r"run_name is 'a\\x00b', with a zero byte in it"):
        workflow.mult.createTask(x=1)
    workflow.run_name = name
    assert states(workflow) == {}


def test_unknown_parameter_is_refused_with_the_nearest(workflow: Workflow) -> None:
    text = refused(workflow, x=1, lable="a")
    assert "the study 'mult' has no job parameter 'lable'" in text
    assert "Did you mean 'label'?" in text


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("x", "1.5", "float"),
        ("x", True, "float"),
        ("x", [1, "a"], "float"),
        ("x", [[1, 2]], "float"),
        ("x", {1, 2}, "float"),
        ("n", 1.5, "int"),
        ("n", "1", "int"),
        ("n", math.inf, "int"),
        ("n", math.nan, "int"),
        ("n", True, "int"),
        ("label", 1, "str"),
        ("label", b"a", "str"),
        ("items", 1, "list"),
        ("items", "abc", "list"),
        ("items", {"a": 1}, "list"),
    ],
)
def test_value_of_the_wrong_type_is_refused(workflow: Workflow, name: str, value: Any, wanted: str) -> None:
    text = refused(workflow, **{name: value})
    assert f"the parameter {name!r} of study 'mult' is declared as {wanted}" in text
    assert "bd.yaml" in text


def test_nothing_is_created_when_one_of_many_values_is_wrong(workflow: Workflow) -> None:
    refused(workflow, x=[1, 2, 3], n=[1, 2, "three"])
    refused(workflow, {"note": 3}, x=[1, 2, 3])


@pytest.mark.parametrize("name", ["id", "job_id", "state", "STATE", "motoko_handle"])
def test_run_parameters_of_motokos_own_are_refused(workflow: Workflow, name: str) -> None:
    assert f"the run parameter {name.lower()!r} of study 'mult' is not yours to set" in refused(
        workflow, {name: 1}, x=1
    )


def test_run_params_must_be_a_mapping(workflow: Workflow) -> None:
    assert "run_params of 'mult' is ['note']" in refused(workflow, ["note"], x=1)


def test_error_names_the_line_of_the_caller(workflow: Workflow) -> None:
    line = inspect.getsourcelines(test_error_names_the_line_of_the_caller)[1] + 4
    with use(Session("it")):
        with pytest.raises(TaskError) as raised:
            workflow.mult.createTask(y=1)
        assert re.match(rf"{re.escape(__file__)}:{line}: ", str(raised.value))


def test_run_that_does_not_exist_is_an_error(workflow: Workflow) -> None:
    with pytest.raises(TaskError, match="the study 'mult' has no run 999999"):
        workflow.mult.run(999999)


# ------------------------------------------------------------------ attributes


def test_study_is_described(workflow: Workflow) -> None:
    manager = workflow.mult
    study = Path(workflow.directory) / "mult"
    assert (manager.study, manager.study_dir, manager.bd_dir) == ("mult", str(study), str(study / ".bd"))
    assert manager.host == f"zeo://{study}"
    assert manager.bd_config["job"]["x"] == "float"
    manager.bd_config["job"].clear()  # a copy
    assert manager.bd_config["job"]["x"] == "float"


def test_base_is_blackdynamites_of_the_session(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    run_id = int(reference.rpartition(".")[2])
    with use(Session("it")):
        base = workflow.mult.connect()
        assert base.runs[run_id].state == "CREATED"
        assert base.jobs[base.runs[run_id].job_id].x == 1.0
        base.runs[run_id].state = "FINISHED"
    assert workflow.mult.base.runs[run_id].state == "CREATED"
    assert workflow.mult.base is workflow.mult.base
    transaction.abort()
