"""``motoko orchestrator``: start, stop and look at the orchestrator."""

from __future__ import annotations

import argparse
import time
from itertools import count
from typing import TYPE_CHECKING

from motoko_core.cli import counts
from motoko_core.cli.context import (
    WorkflowNotFound,
    find_workflow_file,
    open_workflow,
    require_created,
    working_directory,
)
from motoko_core.cli.output import complain, say
from motoko_core.cli.parser import ArgumentParser, add_verbose
from motoko_core.cli.workflow_arguments import add_run_name, add_workflow_arguments, workflow_params
from motoko_core.errors import MotokoError
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

_START_TIMEOUT_S = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    assert isinstance(parser, ArgumentParser)
    directory = parser.workflow_directory
    parts = parser.add_subparsers(dest="what", metavar="start|stop|status", required=True)
    parts.add_parser(
        "start",
        help="execute the workflow",
        description="Execute the workflow: call its main, and then its callbacks as their events happen.",
        fill=_fill_start,
        workflow_directory=directory,
    )
    parts.add_parser("stop", help="stop it, wherever it runs", fill=_fill_stop)
    parts.add_parser("status", help="whether it runs, and how it ended", fill=_fill_status)


def _fill_start(parser: ArgumentParser) -> None:
    add_verbose(parser)
    add_run_name(parser)
    parser.add_argument(
        "-d", "--detach", dest="motoko_detach", action="store_true", help="work in the background"
    )
    # How often Motoko 0.1 looked at the states; now it is told.
    parser.add_argument("--wait", dest="motoko_wait", help=argparse.SUPPRESS)
    parser.add_argument(
        "--do-not-detach", dest="motoko_attached", action="store_true", help=argparse.SUPPRESS
    )
    parser.set_defaults(motoko_run=start, motoko_words=parser.words)
    try:
        path = find_workflow_file(parser.workflow_directory)
    except WorkflowNotFound:
        if {"-h", "--help"}.isdisjoint(parser.words):
            raise
        parser.epilog = "A workflow's own arguments show where its motoko.yaml is found."
        return
    add_workflow_arguments(parser, path)


def _fill_stop(parser: ArgumentParser) -> None:
    add_verbose(parser)
    parser.set_defaults(motoko_run=stop)


def _fill_status(parser: ArgumentParser) -> None:
    add_verbose(parser)
    parser.add_argument("-l", "--logs", action="store_true", help="show the log of the detached one")
    parser.add_argument("-f", "--follow", action="store_true", help="show what is added to it, until Ctrl-C")
    parser.set_defaults(motoko_run=status)


# ---------------------------------------------------------------------- start


def start(args: argparse.Namespace) -> int:
    """Execute the workflow, here or in the background."""
    from motoko_core.cli.executing import Interrupted, execute, interruptible, noted
    from motoko_core.lifecycle import disconnect, refuse_while_running, servers
    from motoko_core.study.starting import start_servers

    workflow: Workflow = args.motoko_workflow
    refuse_while_running(workflow, "start the orchestrator")
    require_created(list(workflow.task_managers.values()))
    if args.motoko_detach and not args.motoko_attached:
        return _detach(workflow, args.motoko_words)
    params = workflow_params(args)
    workflow.run_name = args.motoko_run_name
    workflow.wait_forever = args.motoko_wait_forever
    # They stay up when we end: a launcher may have connected meanwhile. `motoko kill` stops them.
    start_servers(servers(workflow))
    try:
        with working_directory(workflow.directory), noted(workflow) as note:
            note["exit_code"] = interruptible(lambda: execute(workflow, params))
        summarize(workflow)
    except Interrupted:
        complain(f"`motoko orchestrator start --run-name {workflow.run_name}` goes on where it was")
        return 1
    finally:
        disconnect(workflow)
    return int(note["exit_code"])


def summarize(workflow: Workflow) -> None:
    """Write how many tasks of the run are in which state."""
    name = str(workflow.run_name)
    counts.show((m.study, name, counts.of_run_name(m, name)) for m in workflow.task_managers.values())


def _detach(workflow: Workflow, words: list[str]) -> int:
    from motoko_core.cli.executing import last_note
    from motoko_core.daemons import private_directory, wait_until
    from motoko_core.launch.daemon import log_tail, orchestrator_daemon, orchestrator_pid
    from motoko_core.lifecycle import state_directory

    private_directory(state_directory(workflow))
    before = last_note(workflow)
    daemon = orchestrator_daemon(workflow, ["--do-not-detach", *words])
    daemon.start()
    looks = count(1)
    # zdaemon notes every look at its socket in the log; a process that has ended is noticed soon enough.
    wait_until(
        lambda: bool(orchestrator_pid(workflow)) or (next(looks) % 50 == 0 and not daemon.is_running()),
        _START_TIMEOUT_S,
    )
    pid = orchestrator_pid(workflow)
    note = last_note(workflow)
    if pid:
        say(f"the orchestrator is running (process {pid}); its log: {daemon.transcript}")
        return 0
    if note != before and note.get("outcome") == "finished":
        say(f"the orchestrator has finished already; its log: {daemon.transcript}")
        return 0
    daemon.stop()
    raise MotokoError("the orchestrator did not start", hint=f"Its log:\n{log_tail(daemon.transcript)}")


# ---------------------------------------------------------------------- stop


def stop(args: argparse.Namespace) -> int:
    """Stop the orchestrator, detached or not."""
    pid = stop_orchestrator(open_workflow(args))
    say("no orchestrator was running" if pid is None else f"stopped the orchestrator (process {pid})")
    return 0


def stop_orchestrator(workflow: Workflow) -> int | None:
    """Stop the orchestrator of a workflow; answer its process id, None if there was none."""
    from motoko_core.cli.processes import terminate
    from motoko_core.launch.daemon import orchestrator_daemon, orchestrator_pid

    pid = orchestrator_pid(workflow)
    if pid:
        terminate(pid)
    # zdaemon's manager ends with it; or it is about to start one.
    daemon = orchestrator_daemon(workflow)
    if daemon.config.exists() and daemon.stop() and pid is None:
        return 0
    return pid


# ---------------------------------------------------------------------- status


def status(args: argparse.Namespace) -> int:
    """Say whether the orchestrator runs and how the last one ended; show its log."""
    from motoko_core.lifecycle import state_directory

    workflow = open_workflow(args)
    say(status_line(workflow))
    directory = state_directory(workflow)
    log = directory / "wf.log"
    if args.follow:
        from motoko_core.cli.follow import follow

        return follow(directory, log.name)
    if args.logs:
        if log.is_file():
            say(log.read_text(errors="replace").rstrip("\n"))
        else:
            complain(f"there is no log yet: {log}")
    return 0


def status_line(workflow: Workflow) -> str:
    """Whether the orchestrator runs, and how the last one ended, in one line."""
    from motoko_core.cli.executing import last_note
    from motoko_core.launch.daemon import orchestrator_pid

    pid, note = orchestrator_pid(workflow), last_note(workflow)
    of = f" with run name {note['run_name']!r}" if note.get("run_name") else ""
    if pid is not None:
        return f"the orchestrator is running (process {pid})" + (of if note.get("pid") == pid else "")
    if not note:
        return "the orchestrator is not running"
    if not note.get("outcome"):
        return f"the orchestrator is not running; the last one{of} ended without a word"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note.get("ended", 0)))
    return f"the orchestrator is not running; the last one{of} {note['outcome']} ({at})"


COMMAND = CliCommand(
    name="orchestrator", help="start, stop and look at the orchestrator", configure=configure, run=status
)
