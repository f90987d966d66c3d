"""A small workflow from end to end: its studies are created, and tasks go through three of them."""

from __future__ import annotations

from pathlib import Path

from . import study
from .process import arguments, seconds, tell

STUDIES = ("mult", "add", "norm")
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


def main() -> None:
    arguments()
    study.write(Path(), STUDIES, DO_IT, ORCHESTRATOR)
    workflow = study.open_workflow()
    tell("create_studies", seconds(lambda: workflow.create(validated=True)))
    workflow.start_launcher_daemons()
    tell("chain", seconds(workflow.execute))


main()
