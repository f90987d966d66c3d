"""``motoko clean``: make runs ready to be executed again, or remove them."""

from __future__ import annotations

import argparse

from motoko_core.cli.context import chosen_managers, open_workflow
from motoko_core.cli.output import plural, say
from motoko_core.cli.parser import add_study
from motoko_core.interfaces import CliCommand


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make runs ready to be executed again: all, or those that meet the constraints. Their results and "
        "their run directories are removed. It does not ask."
    )
    parser.add_argument("--constraints", metavar="C", help="such as 'state = FAILED' or 'runs.id < 3'")
    add_study(parser, "clean this study only")
    parser.add_argument("--run-name", metavar="NAME", help="the runs of this workflow run only")
    parser.add_argument("--delete", action="store_true", help="remove the runs from the database instead")
    parser.add_argument(
        "--force", action="store_true", help="also runs that are being executed; their processes go on"
    )
    # Scripts may pass it in fear of a question.
    parser.add_argument("--yes", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from motoko_core.cleaning import clean, refuse_under_way, selected
    from motoko_core.lifecycle import running_servers

    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    verb = "deleted" if args.delete else "reset"
    with running_servers(workflow, managers):
        found = {m: selected(m, args.constraints, run_name=args.run_name) for m in managers}
        if not args.force:
            # All studies are looked at before the first one is changed.
            for manager, run_ids in found.items():
                refuse_under_way(manager, run_ids)
        for manager, run_ids in found.items():
            count = clean(manager, run_ids, delete=args.delete, force=args.force)
            say(f"{manager.study}: {verb} {plural(count, 'run')}")
    return 0


COMMAND = CliCommand(name="clean", help="make runs ready to be executed again", configure=configure, run=run)
