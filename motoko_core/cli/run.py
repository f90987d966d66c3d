"""``motoko run``: everything that a workflow needs, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.cli.context import FILE_NAME, WorkflowNotFound, find_workflow_file, working_directory
from motoko_core.cli.output import complain, plural
from motoko_core.cli.parser import ArgumentParser, add_generator, has_positionals
from motoko_core.cli.workflow_arguments import add_run_name, add_workflow_arguments, workflow_params
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

_WITH_VALUE = ("-n", "--run-name", "--run_name", "--generator")


def configure(parser: argparse.ArgumentParser) -> None:
    assert isinstance(parser, ArgumentParser)
    parser.description = (
        "Create the studies that are missing (nothing is dropped), start their servers and a launcher, "
        "execute the workflow, and stop what was started. The same run name again goes on where it was."
    )
    add_run_name(parser)
    add_generator(parser, dest="motoko_generator")
    directory = _take_directory(parser.words) or parser.workflow_directory
    try:
        add_workflow_arguments(parser, find_workflow_file(directory))
    except WorkflowNotFound:
        if {"-h", "--help"}.isdisjoint(parser.words):
            raise
        parser.epilog = "A workflow's own arguments show where its motoko.yaml is found."
    if not has_positionals(parser):
        # Shown in the help; a word that is left for it is no directory, see _take_directory.
        parser.add_argument("motoko_dir", nargs="?", metavar="DIR", help="the workflow's directory")


def _take_directory(words: list[str]) -> Path | None:
    """Take DIR out of the words before the parser reads them: which arguments there are depends on it.

    It is the first word or the last one.
    """
    if words and not words[0].startswith("-") and Path(words[0]).is_dir():
        return Path(words.pop(0))
    is_value = len(words) > 1 and words[-2] in _WITH_VALUE
    if words and not is_value and (Path(words[-1]) / FILE_NAME).is_file():
        return Path(words.pop())
    return None


def run(args: argparse.Namespace) -> int:
    from motoko_core.cli.executing import Interrupted, interruptible
    from motoko_core.cli.running import Execution, check

    if getattr(args, "motoko_dir", None):
        raise WorkflowNotFound(f"there is no directory {args.motoko_dir}")
    workflow: Workflow = args.motoko_workflow
    workflow.run_name = args.motoko_run_name
    workflow.wait_forever = args.motoko_wait_forever
    params = workflow_params(args)
    check(workflow, args.motoko_generator)
    job = Execution(workflow, params, args.motoko_generator)
    try:
        with working_directory(workflow.directory):
            return interruptible(job.work, at_once=job.kill)
    except Interrupted:
        if job.stopped:
            complain(f"stopped {plural(job.stopped, 'task')} that will be executed again from the start")
        complain(f"the same `motoko run` with --run-name {workflow.run_name} goes on where it was")
        return 1


COMMAND = CliCommand(
    name="run", help="execute a workflow, with all that it needs", configure=configure, run=run
)
