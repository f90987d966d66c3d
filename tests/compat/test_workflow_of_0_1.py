"""A workflow directory as users of Motoko 0.1 have it runs as it is, through every way of starting it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.launch.daemon import orchestrator_pid
from motoko_core.workflow import Workflow
from tests.processes import run_python

PATIENCE_S = 60

LAUNCH_SH = """\
#!/bin/bash

echo 'job' __BLACKDYNAMITE__id__
python doIt.py
if [ $? != 0 ]; then
    canYouDigIt runs update --truerun "state=FAILED"
fi
"""
HEAD = """\
import os
import BlackDynamite as BD

{body}

run, job = BD.getRunFromScript()
for name in [name for name in os.environ if "BLACKDYNAMITE_" in name]:
    del os.environ[name]
run.start()
doIt(run, job)
run.finish()
"""
SQUARE = """
def doIt(run, job):
    if job.x < 0:
        raise ValueError("negative")
    run.y = [job.x**2, -job.x]
"""
SHIFT = """
def doIt(run, job):
    run.pushScalarQuantity(job.v + 1, 0, "shifted")
"""
TOTAL = """
import numpy as np
from motoko.workflow import Workflow

def doIt(run, job):
    workflow = Workflow(run.workflow)
    squares = [workflow.square.connect().runs[i] for i in job.ids]
    references = [reference for square in squares for reference in square.dependencies]
    shifted = workflow.get_runs(references)["shift"]
    values = [r.getQuantity("shifted").iloc[0, 1] for r in shifted]
    run.pushQuantity(np.array([sum(values), len(values)]), 0, "total")
"""
ORCHESTRATOR = """
import sys
from motoko.workflow import Workflow, event


def populate_arg_parser(parser):
    parser.add_argument("--inputs", "-i", type=float, required=True, nargs="+")


def note(text):
    with open("noted", "a") as file:
        file.write(text + "\\n")


async def noted(workflow, event_name, task_manager, **params):
    note(f"{event_name} {task_manager.study}")


@event
async def begin(workflow, **params):
    await workflow.square.createTask(x=params["inputs"], run_params=None)


@event
async def forward(runs=None, workflow=None, **params):
    for run, job in runs:
        created = await workflow.shift.createTask(v=run.y)
        run.state = "FORWARDED"
        run.dependencies = [f"shift.{r.id}" for r, j in created]


@event
async def add_up(workflow=None, **params):
    ids = [run.id for run, job in workflow.square.select(["state = FORWARDED"])]
    await workflow.total.createTask(ids=ids)


async def close(runs, workflow, **params):
    for run, job in runs:
        total, count = run.getQuantity("total").iloc[0, 1:]
        note(f"total {total} of {count:g}")
        run.state = "READ"


async def finalize(workflow, **params):
    sys.exit(0)


async def report_error(runs, **params):
    for run, job in runs:
        note(f"error {run.id} x={job.x} in {run.run_path}")


def all_shifted(workflow, task_manager):
    inputs = len(workflow.params_inputs) if hasattr(workflow, "params_inputs") else 2
    if len(workflow.square.select(["state = FORWARDED"])) != inputs:
        return False
    if len(workflow.total.select([])):
        return False
    return not workflow.shift.select(["state != FINISHED"])


async def main(workflow, **params):
    workflow.add_error_handler(event="state = FAILED", f=report_error)
    workflow.add_action(
        "begin",
        event=lambda workflow, task_manager: len(task_manager.select([])) == 0,
        task="square",
        f=begin,
    )
    workflow.add_action("forward", task="square", event=["runs.id < 100", "state = FINISHED"], f=forward)
    workflow.add_action("add_up", task="total", event=all_shifted, f=add_up)
    workflow.add_action("close", task="total", event=lambda run, job: run.state == "FINISHED", f=close)
    workflow.add_action("finish", task="total", event="state = READ", f=finalize)

    # Every form on every task manager:
    workflow.add_action("run filter", event=lambda run, job: run.state == "FINISHED", f=noted)
    workflow.add_action("workflow filter", event=lambda workflow, task_manager: True, f=noted)
    workflow.add_action("no parameter", event=lambda: True, f=noted)
    workflow.add_action("constraint", event="state = FINISHED", f=noted)
    workflow.add_action("list", event=["state = FINISHED", "runs.id < 100"], f=noted)
    workflow.add_action("without workflow", task="shift", event=lambda: True, f=noted)


if __name__ == "__main__":
    main(Workflow("motoko.yaml"))
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    for name, parameter, body in (
        ("square", "x: float", SQUARE),
        ("shift", "v: float", SHIFT),
        ("total", "ids: list", TOTAL),
    ):
        study = directory / name
        study.mkdir()
        (study / "bd.yaml").write_text(f"study: {name}\n\njob:\n  {parameter}\n\nrun:\n")
        (study / "launch.sh").write_text(LAUNCH_SH)
        (study / "doIt.py").write_text(HEAD.format(body=textwrap.dedent(body)))
    (directory / "orchestrator.py").write_text(ORCHESTRATOR)
    (directory / "motoko.yaml").write_text(
        "task_managers:\n  square:\n\n  shift:\n\n  total:\n\norchestrator: orchestrator.main\n"
    )
    yield directory
    # (Jobs that are at work would start their study's server again.)
    motoko(directory, "kill", "--reset")
    shutil.rmtree(directory)


def motoko(directory: Path, *words: str, code: int = 0) -> str:
    """Type a command in the workflow's directory."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("motoko")), *words],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={name: value for name, value in os.environ.items() if not name.startswith("BLACKDYNAMITE")},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def check(directory: Path) -> None:
    """The workflow did what it has to: 2**2 + 1 - 2 + 1 + 3**2 + 1 - 3 + 1 = 12."""
    noted = (directory / "noted").read_text().splitlines()
    assert [line for line in noted if line.startswith("total")] == ["total 12.0 of 4"]
    fired = set(noted)
    assert {f"workflow filter {name}" for name in ("square", "shift", "total")} <= fired
    assert {f"no parameter {name}" for name in ("square", "shift", "total")} <= fired
    assert {f"{form} shift" for form in ("run filter", "constraint", "list", "without workflow")} <= fired
    assert not [line for line in noted if line.startswith("error")]

    workflow = Workflow(directory / "motoko.yaml")
    try:
        runs = workflow.square.base.runs
        assert {runs[number].run_name for number in runs.keys()} == {"first"}  # noqa: SIM118 - not a dict
        assert [runs[number].y for number in (1, 2)] == [[4.0, -2.0], [9.0, -3.0]]
        shifted = workflow.shift.base.runs
        assert {shifted[number].state for number in (1, 2, 3, 4)} == {"FINISHED"}
        assert workflow.total.base.runs[1].getQuantity("total").iloc[0, 1] == 12.0
    finally:
        import transaction

        transaction.abort()
        lifecycle.disconnect(workflow)


def test_on_the_command_line(directory: Path) -> None:
    motoko(directory, "create")
    motoko(directory, "launcher")
    motoko(directory, "orchestrator", "start", "--run_name", "first", "-i", "2", "3")
    assert "FORWARDED" in motoko(directory, "info", "--verbose")
    assert "first" in motoko(directory, "info", "--bd_study", "shift")
    check(directory)
    assert "stopped the launcher" in motoko(directory, "kill")
    assert "nothing was running" in motoko(directory, "kill")


def test_detached(directory: Path) -> None:
    motoko(directory, "create", "--validated")
    motoko(directory, "launcher", "--bd_study", "all")
    motoko(directory, "orchestrator", "start", "--run_name", "first", "--detach", "--inputs", "2", "3")
    workflow = Workflow(directory / "motoko.yaml")
    assert wait_until(lambda: orchestrator_pid(workflow) is None, PATIENCE_S)
    motoko(directory, "orchestrator", "status")
    check(directory)
    motoko(directory, "kill", "--reset")
    assert not (directory / "square" / ".bd").exists()


def test_from_python(directory: Path) -> None:
    script = """
        import sys
        from motoko.workflow import Workflow

        workflow = Workflow("motoko.yaml")
        workflow.create(validated=True)
        workflow.run_name = "first"
        workflow.start_launcher_daemons()
        workflow.execute(inputs=[2.0, 3.0])
    """
    run_python(script, cwd=directory)
    check(directory)


def test_a_task_that_fails_reaches_the_error_handler_and_the_exit_code(directory: Path) -> None:
    motoko(directory, "create", "--validated")
    motoko(directory, "launcher")
    output = motoko(directory, "orchestrator", "start", "--run_name", "first", "-i", "-4", "3", code=1)
    noted = (directory / "noted").read_text()
    assert f"error 1 x=-4.0 in {directory}/square/BD-square-runs/run-1" in noted
    assert "square.1" in output
