"""``motoko results``: what came out, one row per task."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.cli.context import open_workflow, require_created
from motoko_core.cli.output import is_terminal
from motoko_core.errors import ConfigError
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.study.constraints import Constraint
    from motoko_core.study.table import Header, Row
    from motoko_core.task_manager import TaskManager

_FORMATS = ("table", "csv", "json", "parquet")
_STDOUT = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the tasks with their parameters, run entries, and the last value of each quantity. The "
        "databases are read as they are at the moment; no server is needed, and none is disturbed."
    )
    task = parser.add_argument("--task", metavar="T", help="the tasks of one task manager (default: of all)")
    parser.add_argument(
        "--constraints", metavar="C", help="tasks that meet C only, such as 'state = FINISHED'"
    )
    parser.add_argument("--run-name", metavar="NAME", help="tasks of this workflow run only")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="default: what the name of FILE ends with; else a table on a terminal, csv in a pipe. A table "
        "leaves out entries that say how a run was executed",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default=_STDOUT, help="write FILE, whole or not at all"
    )
    from motoko_core.cli import completion

    task.completer = completion.studies  # type: ignore[attr-defined]


def run(args: argparse.Namespace) -> int:
    from motoko_core.cli.destination import destination
    from motoko_core.cli.results_formats import writer

    path = None if args.output == _STDOUT else Path(args.output)
    write = writer(_format(args.format, path))
    workflow = open_workflow(args)
    managers = list(workflow.task_managers.values())
    if args.task is not None:
        managers = [workflow.task_manager(args.task, where="--task")]
    require_created(managers)
    # All constraints are read before the first study is.
    constraints = [manager.constraint(args.constraints) for manager in managers]
    with destination(path) as target:
        write(
            (
                (manager.study, *_read(manager, constraint, args.run_name))
                for manager, constraint in zip(managers, constraints, strict=True)
            ),
            target,
        )
    return 0


def _format(wanted: str | None, path: Path | None) -> str:
    if path is None:
        if wanted == "parquet":
            raise ConfigError("parquet is not for reading", where="--format", hint="Name a file: -o FILE")
        return wanted or ("table" if is_terminal() else "csv")
    ending = path.suffix.removeprefix(".").lower()
    if wanted is None and ending not in _FORMATS:
        raise ConfigError(
            f"the name {path.name!r} does not tell the format",
            where="--output",
            hint="Give it: --format csv, json, parquet or table; or let the name end with it.",
        )
    return wanted or ending


def _read(manager: TaskManager, constraint: Constraint, run_name: str | None) -> tuple[Header, Iterator[Row]]:
    """The columns of a study's rows, complete when the last row was given, and the rows."""
    from motoko_core.study.quantities import LastQuantities
    from motoko_core.study.snapshot import snapshot
    from motoko_core.study.table import Header, rows_in

    header = Header(manager.database.names)

    def rows() -> Iterator[Row]:
        host = manager.workflow.configuration.task_managers[manager.study].host
        quantities = LastQuantities(manager.study_config.directory)
        with snapshot(manager.study, manager.study_config, host) as content:
            for row in rows_in(content, constraint, run_name, quantities):
                yield header.take(row)
        quantities.report()

    return header, rows()


COMMAND = CliCommand(name="results", help="show what came out, a row per task", configure=configure, run=run)
