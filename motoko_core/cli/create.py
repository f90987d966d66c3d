"""``motoko create``: make the studies anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from motoko_core.cli.context import FILE_NAME, WorkflowNotFound, open_file, open_workflow
from motoko_core.cli.output import complain, say
from motoko_core.interfaces import CliCommand


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--validated", action="store_true", help="drop what is there without asking")
    parser.add_argument("directory", nargs="?", metavar="DIR", help="the workflow's directory")


def run(args: argparse.Namespace) -> int:
    if args.directory is None:
        workflow = open_workflow(args)
    else:
        path = Path(args.directory) / FILE_NAME
        if not path.is_file():
            raise WorkflowNotFound(f"there is no {FILE_NAME} in {args.directory}")
        workflow = open_file(path)
    if not workflow.create(validated=args.validated):
        complain("nothing was changed")
        return 1
    say(f"created {', '.join(workflow.task_managers)} in {workflow.directory}; their servers are running")
    return 0


COMMAND = CliCommand(name="create", help="make the studies anew, empty", configure=configure, run=run)
