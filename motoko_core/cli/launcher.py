"""``motoko launcher``: execute the runs that wait."""

from __future__ import annotations

import argparse
from typing import Any

from motoko_core.cli import completion
from motoko_core.cli.context import chosen_managers, open_workflow, require_created
from motoko_core.cli.output import say
from motoko_core.cli.parser import add_study
from motoko_core.interfaces import CliCommand


def add_generator(parser: argparse.ArgumentParser, *, dest: str = "generator") -> None:
    """Add ``--generator``."""
    action: Any = parser.add_argument(
        "--generator", dest=dest, metavar="G", help="another job generator than motoko.yaml names"
    )
    action.completer = completion.generators


def configure(parser: argparse.ArgumentParser) -> None:
    add_generator(parser)
    add_study(parser, "launch the runs of this study only")
    parser.add_argument("--do-not-detach", action="store_true", help="work here instead of in the background")
    parser.add_argument("-l", "--log", action="store_true", help="show what the launchers do, until Ctrl-C")
    # `motoko run` starts its launcher so: what is under way when it stops waits for the next one.
    parser.add_argument("--cancel-on-exit", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    if args.log:
        from motoko_core.cli.follow import follow
        from motoko_core.lifecycle import state_directory

        return follow(state_directory(workflow), "launcher*.log")

    from motoko_core.launch.daemon import launch, launcher_daemon, run_launcher

    require_created(managers)
    study = "all" if args.bd_study == "all" else managers[0].study
    if args.cancel_on_exit and args.do_not_detach:
        run_launcher(workflow, study=study, generator=args.generator, keep_jobs=False)
        return 0
    if not launch(workflow, study=study, generator=args.generator, detach=not args.do_not_detach):
        say("a launcher is at work already; `motoko launcher --log` shows what it does")
        return 0
    if not args.do_not_detach:
        names = ", ".join(manager.study for manager in managers)
        say(f"the launcher serves {names}; its log: {launcher_daemon(workflow, study).transcript}")
    return 0


COMMAND = CliCommand(name="launcher", help="execute the runs that wait", configure=configure, run=run)
