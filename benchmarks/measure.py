"""Measure one version of Motoko; prints JSON. Uses only what Motoko 0.1.4 knows.

usage: python measure.py DIRECTORY TASKS
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STUDIES = ("mult", "add", "norm")
BD_YAML = "study: {name}\njob:\n  x: float\nrun:\n"
LAUNCH_SH = "#!/bin/bash\npython doIt.py\n"
DO_IT = """\
import BlackDynamite as BD

run, job = BD.getRunFromScript()
run.start()
run.y = [2 * job.x]
run.finish()
"""
ORCHESTRATOR = """\
from motoko.workflow import event


def populate_arg_parser(parser):
    pass


def forward_to(name):
    @event
    async def forward(runs=None, workflow=None, **kwargs):
        for run, job in runs:
            getattr(workflow, name).createTask(x=run.y)
            run.state = "FORWARDED"

    return forward


async def finish(workflow=None, **kwargs):
    workflow.finished = True


async def main(workflow, **params):
    workflow.add_action("multiplied", task="mult", event="state = FINISHED", f=forward_to("add"))
    workflow.add_action("added", task="add", event="state = FINISHED", f=forward_to("norm"))
    workflow.add_action("done", task="norm", event=lambda workflow, task_manager: (
        len(task_manager.select("state = FINISHED")) == 2), f=finish)
    workflow.mult.createTask(x=[1.0, 2.0])
"""


def write(directory: Path) -> None:
    for name in STUDIES:
        study = directory / name
        study.mkdir(parents=True)
        (study / "bd.yaml").write_text(BD_YAML.format(name=name))
        (study / "launch.sh").write_text(LAUNCH_SH)
        (study / "doIt.py").write_text(DO_IT)
    (directory / "orchestrator.py").write_text(ORCHESTRATOR)
    managers = "".join(f"  {name}:\n" for name in STUDIES)
    (directory / "motoko.yaml").write_text(f"task_managers:\n{managers}orchestrator: orchestrator.main\n")


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(directory: Path, tasks: int) -> dict[str, float]:
    write(directory)
    os.chdir(directory)
    import transaction

    from motoko.workflow import Workflow

    workflow = Workflow("motoko.yaml")
    found = {"create three studies [s]": seconds(lambda: workflow.create(validated=True))}

    workflow.run_name = "steps"
    workflow.start_launcher_daemons()
    found["a chain of three steps, two tasks each [s]"] = seconds(workflow.execute)

    workflow.run_name = "many"
    half = tasks // 2

    def create(first: int, last: int) -> None:
        for i in range(first, last):
            workflow.mult.createTask(run_params={"machine_name": "nowhere"}, x=float(i))
        transaction.commit()

    found[f"createTask, the first {half} [ms each]"] = seconds(lambda: create(0, half)) / half * 1e3
    found[f"createTask, the next {half} [ms each]"] = seconds(lambda: create(half, 2 * half)) / half * 1e3
    key = f'select("state = START") among {tasks} runs [ms]'
    workflow.mult.select("state = START")()
    found[key] = seconds(lambda: [workflow.mult.select("state = START")() for _ in range(5)]) / 5 * 1e3
    command = ["motoko", "info"]
    found["motoko info [s]"] = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1])
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = measure(target, int(sys.argv[2]))
        print(json.dumps(result))
    finally:
        subprocess.run(["motoko", "kill"], cwd=target, check=False, capture_output=True)
