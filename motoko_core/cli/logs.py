"""``motoko logs``: what a run writes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motoko_core.cli.context import find_workflow_file, open_file, require_created
from motoko_core.cli.output import complain
from motoko_core.entries import stored_failure
from motoko_core.errors import TaskError
from motoko_core.interfaces import CliCommand
from motoko_core.states import is_active, is_failure

if TYPE_CHECKING:
    from motoko_core.cli.run_output import Output
    from motoko_core.cli.run_watch import RunWatch

_POLL_S = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    from motoko_core.cli import completion

    parser.description = (
        "Show what a run has written to its standard output and its standard error: the files "
        "<run_name>.o<id> and <run_name>.e<id> in its directory. The database is read as it is at the "
        "moment; no server is needed."
    )
    reference = parser.add_argument("task", metavar="TASK", help="the run, such as add.3")
    reference.completer = completion.task_managers  # type: ignore[attr-defined]
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--stdout", action="store_true", help="its standard output only")
    one.add_argument("--stderr", action="store_true", help="its standard error only")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on with what is added, until the run is over or Ctrl-C",
    )


def run(args: argparse.Namespace) -> int:
    from motoko_core.cli.run_output import Output
    from motoko_core.cli.run_watch import RunWatch

    workflow = open_file(find_workflow_file(args.motoko_directory))
    name, dot, number = args.task.rpartition(".")
    if not (dot and number.isdecimal()):
        raise TaskError(f"{args.task!r} is not a reference to a run", hint="Write it as in 'add.1'.")
    manager = workflow.task_manager(name, where=args.task)
    require_created([manager])
    watch = RunWatch(manager, int(number))
    output = Output(stdout=not args.stderr, stderr=not args.stdout)
    try:
        return _follow(watch, output) if args.follow else _show(watch, output)
    finally:
        manager.database.close()


def _show(watch: RunWatch, output: Output) -> int:
    entries = watch.look()
    if watch.waits and entries.get("run_path"):
        complain(f"{watch.reference} waits to be executed again; this is what the last attempt has written")
    if output.show(entries):
        return 0
    complain(_why_nothing(watch, entries, output))
    return 1


def _follow(watch: RunWatch, output: Output) -> int:
    shown = told = False
    try:
        while True:
            # In this order: what was written before the run was over is shown.
            entries = watch.look()
            is_over = watch.is_over
            if watch.waits and not told:
                complain(f"{watch.reference} waits for a launcher{_advice(watch)}")
                told = True
            shown |= not watch.waits and output.show(entries)
            if is_over:
                break
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return 0
    if not shown:
        complain(_why_nothing(watch, entries, output))
    complain(f"{watch.reference} is {_outcome(entries)}")
    return 0 if shown else 1


def _outcome(entries: Mapping[str, Any]) -> str:
    state, failure = str(entries.get("state")), stored_failure(entries)
    if not is_failure(state) or not failure:
        return state
    code = failure.get("exit_code")
    return f"{state} ({failure.get('reason')}" + (f", exit code {code})" if code is not None else ")")


def _advice(watch: RunWatch) -> str:
    return "" if watch.has_launcher else "; none is running: `motoko launcher` starts one"


def _why_nothing(watch: RunWatch, entries: Mapping[str, Any], output: Output) -> str:
    what, state = watch.reference, entries.get("state")
    directory = entries.get("run_path")
    if watch.waits:
        return f"{what} has not begun: it waits for a launcher{_advice(watch)}"
    if not directory:
        return f"{what} has never been executed: it is {_outcome(entries)}"
    if not output.directory(entries).is_dir():
        machine = entries.get("machine_name")
        elsewhere = "" if machine in (None, "localhost") else f", or on {machine}"
        return f"the directory of {what} is gone{elsewhere}: {directory}"
    begun = "has written nothing yet" if is_active(state) else "has left no such file"
    text = f"{what} is {_outcome(entries)}, and {begun}: {output.names(entries)} in {directory}"
    failure = stored_failure(entries)
    # Why it was refused, lost or cancelled: whoever asks for its output has nothing else to look at.
    told = failure.get("stderr") if is_failure(str(state)) else None
    return f"{text}\n{str(told).rstrip()}" if told else text


COMMAND = CliCommand(name="logs", help="show what a run writes", configure=configure, run=run)
