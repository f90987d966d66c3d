"""``motoko kill``: stop everything that runs for the workflow in the background."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from motoko_core.cli.context import chosen_managers, open_workflow
from motoko_core.cli.output import say
from motoko_core.cli.parser import add_study
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow


def configure(parser: argparse.ArgumentParser) -> None:
    add_study(parser, "stop the launcher and the server of this study only")
    parser.add_argument("--reset", action="store_true", help="then remove all data and results (destructive)")
    parser.add_argument(
        "--aggressive",
        action="store_true",
        help="also kill what is left of servers whose manager is gone; for all studies: every database "
        "server of yours on this machine, those of other workflows too",
    )


def run(args: argparse.Namespace) -> int:
    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    everything = args.bd_study == "all"
    stopped = stop(workflow, managers, everything=everything)
    if args.aggressive:
        from motoko_core.cli.processes import kill_servers

        stopped += kill_servers(workflow, managers, everything=everything)
    if args.reset:
        from motoko_core.lifecycle import reset

        reset(workflow, None if everything else managers)
    for title in stopped:
        say(f"stopped {title}")
    if args.reset:
        say(f"removed the data and results of {', '.join(m.study for m in managers)}")
    elif not stopped:
        say("nothing was running")
    return 0


def stop(workflow: Workflow, managers: list[TaskManager], *, everything: bool) -> list[str]:
    """Stop the orchestrator, launchers and servers; answer the titles of those that ran."""
    from motoko_core.cli.orchestrator import stop_orchestrator
    from motoko_core.launch.daemon import stop_launcher
    from motoko_core.lifecycle import servers
    from motoko_core.study.starting import stop_servers

    stopped = []
    if everything:
        pid = stop_orchestrator(workflow)
        if pid is not None:
            stopped.append(f"the orchestrator (process {pid})")
        stopped += stop_launcher(workflow)
        stopped += stop_foreground_launchers(managers)
        served = servers(workflow)
    else:
        for manager in managers:
            stopped += stop_launcher(workflow, manager.study)
        served = [manager.database.server for manager in managers]
    stopped += [f"the server of {server.title}" for server in stop_servers(served)]
    return stopped


def stop_foreground_launchers(managers: list[TaskManager]) -> list[str]:
    """Stop launchers that somebody started in a terminal; they hold the same locks."""
    from motoko_core.cli.processes import terminate
    from motoko_core.launch.daemon import launcher_locks
    from motoko_core.locks import holder

    found = []
    for pid in {holder(lock) for lock in launcher_locks(managers)} - {None, 0, os.getpid()}:
        if pid is not None and terminate(pid):
            found.append(f"a launcher (process {pid})")
    return found


COMMAND = CliCommand(
    name="kill", help="stop orchestrator, launchers and servers", configure=configure, run=run
)
