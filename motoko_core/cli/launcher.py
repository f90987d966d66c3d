"""``motoko launcher``: execute the runs that wait."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motoko_core.cli.context import chosen_managers, open_workflow, require_created
from motoko_core.cli.output import complain, say
from motoko_core.cli.parser import add_generator, add_study
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start the launcher, which executes the runs that wait; or look at it, or stop it. When it is "
        "stopped, its jobs go on, and the next launcher follows them."
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("start", "status", "stop"),
        default="start",
        help="start it (this is the default), show what it has in hand, or stop it",
    )
    add_generator(parser)
    add_study(parser, "for the runs of this study only")
    parser.add_argument("--do-not-detach", action="store_true", help="work here instead of in the background")
    parser.add_argument("-l", "--log", action="store_true", help="show what the launchers do, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="status: write JSON")
    # `motoko run` starts its launcher so: what is under way when it stops waits for the next one.
    parser.add_argument("--cancel-on-exit", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if args.what == "status":
        from motoko_core.cli.launcher_status import status

        return status(args)
    return stop(args) if args.what == "stop" else start(args)


def start(args: argparse.Namespace) -> int:
    """Start a launcher, here or in the background; or show the log of the one at work."""
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
        _refuse_partly_served(workflow, managers)
        say("a launcher is at work already; `motoko launcher status` shows what it has in hand")
        return 0
    if not args.do_not_detach:
        names = ", ".join(manager.study for manager in managers)
        say(f"the launcher serves {names}; its log: {launcher_daemon(workflow, study).transcript}")
    return 0


def _refuse_partly_served(workflow: Workflow, managers: Sequence[TaskManager]) -> None:
    """:raises AlreadyRunning: some of the studies are served, and some are not."""
    from motoko_core.errors import AlreadyRunning
    from motoko_core.locks import who_holds

    holders = {manager.study: who_holds(manager.launcher_lock) for manager in managers}
    served = [f"{study} ({holder})" for study, holder in holders.items() if holder]
    free = [study for study, holder in holders.items() if not holder]
    if served and free:
        others = "; ".join(f"`motoko launcher --bd-study {study}`" for study in free)
        raise AlreadyRunning(
            f"a launcher serves {', '.join(served)} already, and none serves {', '.join(free)}",
            hint=f"Start one for the rest: {others}. Or stop that one first: `motoko launcher stop`.",
        )


def stop(args: argparse.Namespace) -> int:
    """Stop launchers; their jobs go on. Those that belong to a ``motoko run`` are left alone."""
    from motoko_core.cli.processes import stop_launchers

    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    stopped, others = stop_launchers(workflow, managers, everything=args.bd_study == "all")
    for title in stopped:
        say(f"stopped {title}; its jobs go on")
    for reason in others:
        complain(reason)
    if not stopped and not others:
        say("no launcher was running")
    return 1 if others else 0


COMMAND = CliCommand(
    name="launcher", help="execute the runs that wait; show or stop what does", configure=configure, run=run
)
