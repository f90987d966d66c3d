"""Jobs and runs as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from motoko_core import lifecycle
from motoko_core.session import Session, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks


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
