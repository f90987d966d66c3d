"""``motoko cancel``: stop runs for good."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from motoko_core.cli import completion
from motoko_core.cli.context import chosen_managers, open_workflow
from motoko_core.cli.output import complain, plural, say
from motoko_core.cli.parser import add_generator, add_study
from motoko_core.errors import ConfigError, MotokoError, TaskError, nearest
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.launch.cancelling import Cancellation
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

_POLL_S = 0.05
#: A job gets some seconds to end, and a scheduler may take its time to say that it has.
_TIMEOUT_S = 120.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cancel runs that wait or are under way: their jobs are stopped, and they end as FAILED with the "
        "reason CANCELLED. They are not executed again, unless an error handler says so for this reason. "
        "Without any selection: all that wait or are under way."
    )
    task: Any = parser.add_argument(
        "--task",
        metavar="T",
        nargs="+",
        action="extend",
        help="these runs, such as add.3; or all of a task manager, such as add",
    )
    task.completer = completion.task_managers
    parser.add_argument("--constraints", metavar="C", help="those that meet C only, such as 'x < 2'")
    add_study(parser, "those of this study only")
    parser.add_argument("--run-name", metavar="NAME", help="those of this workflow run only")
    add_generator(parser, help_text="what executes the jobs that no launcher looks after")
    parser.add_argument("--yes", action="store_true", help="do not ask before everything is cancelled")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the jobs have ended")


def run(args: argparse.Namespace) -> int:
    from motoko_core.launch.cancelling import Cancellation
    from motoko_core.lifecycle import running_servers

    workflow = open_workflow(args)
    wanted = _wanted(workflow, args)
    with running_servers(workflow, list(wanted)):
        selected, over = _select(wanted, args)
        count = sum(map(len, selected.values()))
        if not count and not over:
            say("nothing waits or is under way" + ("" if _is_everything(args) else " of what was selected"))
            return 0
        if _is_everything(args) and not args.yes and not _agreed(selected):
            complain("nothing was cancelled")
            return 1
        cancellation = Cancellation(workflow, selected, args.generator)
        cancellation.ask()
        if args.no_wait:
            cancellation.look()  # where there is no launcher, nobody else would
        else:
            _wait(cancellation, count)
        return _tell(cancellation, over, waited=not args.no_wait)


# ---------------------------------------------------------------------- which runs


def _wanted(workflow: Workflow, args: argparse.Namespace) -> dict[TaskManager, set[int] | None]:
    """Task manager -> run ids that were named; None: all of its runs."""
    managers = chosen_managers(workflow, args)
    if not args.task:
        return dict.fromkeys(managers)
    found: dict[TaskManager, set[int] | None] = {}
    for reference in args.task:
        name, dot, number = reference.rpartition(".")
        is_run = bool(dot) and number.isdecimal()
        manager = workflow.task_manager(name if is_run else reference, where="--task")
        if manager not in managers:
            raise ConfigError(
                f"{reference!r} is not of the study {args.bd_study!r}",
                where="--task",
                hint="Leave out --bd-study.",
            )
        if not is_run:
            found[manager] = None
        elif (run_ids := found.setdefault(manager, set())) is not None:
            run_ids.add(int(number))
    return found


def _is_everything(args: argparse.Namespace) -> bool:
    return not args.task and args.constraints is None and args.run_name is None and args.bd_study == "all"


def _select(
    wanted: dict[TaskManager, set[int] | None], args: argparse.Namespace
) -> tuple[dict[TaskManager, set[int]], int]:
    """The runs to cancel, and how many of those that were meant are over already."""
    from motoko_core.cleaning import selected
    from motoko_core.launch.cancelling import is_under_way
    from motoko_core.states import is_active

    if args.run_name is not None:
        _require_run_name(wanted, args.run_name)
    found, over = {}, 0
    for manager, named in wanted.items():
        manager.database.index.refresh()
        rows = manager.database.index.rows
        if named is not None:
            _require_runs(manager, named)
        met = set(selected(manager, args.constraints, run_name=args.run_name))
        met = met if named is None else met & named
        known = {run_id: row for run_id in met if (row := rows.get(run_id)) is not None}
        found[manager] = {
            run_id for run_id, row in known.items() if is_under_way(row) or is_active(row.get("state"))
        }
        if named is not None or args.constraints is not None:
            over += len(met) - len(found[manager])
    return found, over


def _require_runs(manager: TaskManager, run_ids: Iterable[int]) -> None:
    known = sorted(manager.database.index.rows)
    for run_id in sorted(run_ids):
        if run_id not in manager.database.index.rows:
            has = (
                f"It has {plural(len(known), 'run')}, {known[0]} to {known[-1]}"
                if known
                else "It has no runs"
            )
            raise TaskError(
                f"the study {manager.study!r} has no run {run_id}",
                where="--task",
                hint=f"{has}; `motoko info --verbose` lists them.",
            )


def _require_run_name(managers: Iterable[TaskManager], name: str) -> None:
    known: set[str] = set()
    for manager in managers:
        rows = manager.database.index.rows
        known |= {str(rows.value(run_id, "run_name")) for run_id in rows}
    if name not in known:
        raise ConfigError(f"no run has the name {name!r}", where="--run-name", hint=nearest(name, known))


def _agreed(selected: dict[TaskManager, set[int]]) -> bool:
    listed = ", ".join(f"{len(ids)} of {manager.study}" for manager, ids in selected.items() if ids)
    question = f"This cancels all runs that wait or are under way: {listed}."
    if not sys.stdin.isatty():
        raise MotokoError(f"{question} There is nobody to ask.", hint="Pass --yes, or select some of them.")
    return input(f"{question} Go on? (y/N) ").strip().lower() in ("y", "yes")


# ---------------------------------------------------------------------- waiting


def _wait(cancellation: Cancellation, count: int) -> None:
    from motoko_core.progress import shown

    end = time.monotonic() + _TIMEOUT_S
    told = 0
    with shown(count, "cancelling") as advance:
        while not cancellation.is_done and time.monotonic() < end:
            cancellation.look()
            done = cancellation.cancelled + cancellation.ended
            advance(done - told)
            told = done
            if not cancellation.is_done:
                time.sleep(_POLL_S)


def _tell(cancellation: Cancellation, over: int, *, waited: bool) -> int:
    ended = cancellation.ended + over
    others = f"; {plural(ended, 'run')} had ended already" if ended else ""
    if cancellation.cancelled or others or not (cancellation.strangers or not cancellation.is_done):
        say(f"cancelled {plural(cancellation.cancelled, 'run')}{others}")
    left = sum(map(len, cancellation.left.values()))
    if left and waited:
        complain(f"{plural(left, 'job')} did not end within {_TIMEOUT_S:g} s: {_listed(cancellation.left)}")
        complain("  The launcher goes on stopping them; `motoko launcher --log` shows what it does.")
    elif left:
        say(f"asked to stop {plural(left, 'job')}")
    if cancellation.strangers:
        complain(
            f"nothing is known of the jobs of {_listed(cancellation.strangers)}: no launcher has started them"
        )
        complain("  `motoko clean --force` makes such runs ready to be executed again.")
    return 1 if (left and waited) or cancellation.strangers else 0


def _listed(runs: Any) -> str:
    references = [f"{manager.study}.{run_id}" for manager, ids in runs.items() for run_id in sorted(ids)]
    more = f" and {len(references) - 5} more" if len(references) > 5 else ""
    return ", ".join(references[:5]) + more


COMMAND = CliCommand(name="cancel", help="stop runs for good", configure=configure, run=run)
