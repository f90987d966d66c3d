"""``motoko kill``: stop everything that runs for the workflow on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motoko_core.cli.context import chosen_managers, open_workflow
from motoko_core.cli.output import complain, plural, say
from motoko_core.cli.parser import add_study
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.launch.stopping import Stopped
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Stop the orchestrator, the launchers with the jobs that are processes on this machine, and the "
        "servers. Runs whose jobs are stopped wait for the next launcher. Jobs of a scheduler go on."
    )
    add_study(parser, "stop the launcher, the jobs and the server of this study only")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--reset", action="store_true", help="then remove all data and results (destructive)")
    one.add_argument(
        "--keep-jobs", action="store_true", help="let the jobs go on; the next launcher follows them"
    )
    parser.add_argument(
        "--aggressive",
        action="store_true",
        help="also kill what is left of servers whose manager is gone; for all studies: every database "
        "server of yours on this machine, those of other workflows too",
    )


def run(args: argparse.Namespace) -> int:
    from motoko_core.cli.remains import Remains

    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    everything = args.bd_study == "all"
    remains = Remains(workflow, managers, everything=everything, keep_jobs=args.keep_jobs)
    stopped, jobs, others = stop(workflow, managers, everything=everything, keep_jobs=args.keep_jobs)
    remains.clear()
    if args.aggressive:
        from motoko_core.cli.processes import kill_servers

        stopped += kill_servers(workflow, managers, everything=everything)
    if args.reset:
        from motoko_core.lifecycle import reset

        reset(workflow, None if everything else managers)
    for title in stopped:
        say(f"stopped {title}")
    _tell(jobs, args)
    for reason in others + jobs.troubles:
        complain(reason)
    if args.reset:
        say(f"removed the data and results of {', '.join(m.study for m in managers)}")
    elif not stopped and not jobs.count and not others:
        say("nothing was running")
    return _refuse_rest(remains.left())


def stop(
    workflow: Workflow, managers: list[TaskManager], *, everything: bool, keep_jobs: bool = False
) -> tuple[list[str], Stopped, list[str]]:
    """Stop the orchestrator, launchers, jobs and servers.

    :return: the titles of what ran, what has become of the jobs, and what was left alone and why.
    """
    from motoko_core.cli.orchestrator import stop_orchestrator
    from motoko_core.cli.processes import stop_launchers
    from motoko_core.launch.stopping import stop_local
    from motoko_core.lifecycle import disconnect, servers
    from motoko_core.study.starting import stop_servers

    stopped = []
    if everything:
        pid = stop_orchestrator(workflow)
        if pid is not None:
            stopped.append(f"the orchestrator (process {pid})")
    launchers, others = stop_launchers(workflow, managers, everything=everything, of_runs=True)
    jobs = stop_local(workflow, managers, keep=keep_jobs)
    disconnect(workflow)
    served = servers(workflow) if everything else [manager.database.server for manager in managers]
    ended = [server for server in stop_servers(served) if server not in jobs.started]
    stopped += launchers + [f"the server of {server.title}" for server in ended]
    return stopped, jobs, others


def _tell(jobs: Stopped, args: argparse.Namespace) -> None:
    if jobs.count:
        wait = "their runs wait" if jobs.count > 1 else "its run waits"
        say(
            f"stopped {plural(jobs.count, 'job')}" + ("" if args.reset else f"; {wait} for the next launcher")
        )
    for name, count in jobs.kept.items():
        if not args.reset:
            goes, them = ("go", "them") if count > 1 else ("goes", "it")
            what = "the next launcher follows" if args.keep_jobs else "`motoko cancel` stops"
            say(f"{plural(count, 'job')} of {name} {goes} on; {what} {them}")


def _refuse_rest(left: Sequence[str]) -> int:
    if not left:
        return 0
    complain("this is still there:")
    for line in left:
        complain(f"  {line}")
    complain("  `kill -9` with the numbers of the processes ends them.")
    return 1


COMMAND = CliCommand(
    name="kill", help="stop orchestrator, launchers, their jobs, and servers", configure=configure, run=run
)
