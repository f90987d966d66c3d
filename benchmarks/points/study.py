"""The study that the figures are measured on: ``many``, with one job parameter, and runs in three states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "many"
RUN_NAME = "bench"
#: No launcher takes them.
RUN_PARAMS = {"machine_name": "nowhere"}
#: Runs in the state START; half of the others are FORWARDED, the rest CREATED.
FEW = 10

BD_YAML = "study: {name}\njob:\n  x: float\nrun:\n"
LAUNCH_SH = "#!/bin/bash\npython doIt.py\n"
#: Every command of 0.1.4 asks for both functions.
ORCHESTRATOR = """\
def populate_arg_parser(parser):
    pass


async def main(workflow, **params):
    pass
"""


def write(
    directory: Path, names: tuple[str, ...], do_it: str, orchestrator: str, launch: str = LAUNCH_SH
) -> None:
    """Write a workflow directory."""
    for name in names:
        study = directory / name
        study.mkdir(parents=True)
        (study / "bd.yaml").write_text(BD_YAML.format(name=name))
        (study / "launch.sh").write_text(launch)
        (study / "doIt.py").write_text(do_it)
    (directory / "orchestrator.py").write_text(orchestrator)
    managers = "".join(f"  {name}:\n" for name in names)
    (directory / "motoko.yaml").write_text(f"task_managers:\n{managers}orchestrator: orchestrator.main\n")


def open_workflow() -> Any:
    """The workflow of the current directory, under the ``run_name`` of the runs."""
    from motoko.workflow import Workflow

    workflow = Workflow("motoko.yaml")
    workflow.run_name = RUN_NAME
    return workflow


def states(runs: int) -> list[str]:
    """The state of each run, by id from 1 on; the few are spread evenly."""
    few = {number * runs // FEW for number in range(FEW)} if runs else set()
    found, others = [], 0
    for number in range(runs):
        if number in few:
            found.append("START")
        else:
            found.append(("FORWARDED", "CREATED")[others % 2])
            others += 1
    return found
