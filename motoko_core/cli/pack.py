"""``motoko pack``: make the databases smaller."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING

from motoko_core.cli.context import open_workflow
from motoko_core.cli.output import say, size_text
from motoko_core.errors import MotokoError
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.study.packing import Packed
    from motoko_core.study.server import Server
    from motoko_core.workflow import Workflow


def configure(parser: argparse.ArgumentParser) -> None:
    from motoko_core.cli import completion

    parser.add_argument(
        "--days",
        type=_days,
        default=0.0,
        metavar="N",
        help="keep what was current within the last N days (default: 0)",
    )
    action = parser.add_argument(
        "--task", "--bd-study", metavar="T", help="pack this study only (default: all, and the variables)"
    )
    action.completer = completion.studies  # type: ignore[attr-defined]


def _days(text: str) -> float:
    days = float(text)
    if not math.isfinite(days) or days < 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of days")
    return days


def run(args: argparse.Namespace) -> int:
    workflow = open_workflow(args)

    from motoko_core import lifecycle
    from motoko_core.study.packing import pack

    chosen = None if args.task is None else [workflow.task_manager(args.task, where="--task")]
    with lifecycle.running_servers(workflow, chosen):
        _refuse_cut_short(workflow)
        if chosen is None:
            servers = lifecycle.servers(workflow)
        else:
            servers = [manager.database.server for manager in chosen]
        for server in servers:
            say(_told(server, pack(server, args.days)))
    return 0


def _refuse_cut_short(workflow: Workflow) -> None:
    """:raises ~motoko_core.errors.MotokoError: what a transaction is mended with would be packed away."""
    from motoko_core.lifecycle import state_directory
    from motoko_core.study.packing import MARGIN_S

    for path in state_directory(workflow).glob("commit-*.journal"):
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue  # it was finished meanwhile
        if age_s > MARGIN_S / 2:
            raise MotokoError(
                "cannot pack: a transaction over several studies was cut short, and is still to be mended",
                where=str(path),
                hint="Start the orchestrator once, which mends it, then pack.",
            )


def _told(server: Server, packed: Packed) -> str:
    text = f"{server.title}: {size_text(packed.before)}"
    if packed.copy is None and packed.after >= packed.before:
        return f"{text}, nothing to drop"
    text += f" -> {size_text(packed.after)}"
    if packed.copy is not None:
        text += (
            f"; {server.data}.old keeps what was there before ({size_text(packed.copy)}): "
            "remove it when you do not need it"
        )
    return text


COMMAND = CliCommand(
    name="pack", help="make the databases smaller: drop outdated states", configure=configure, run=run
)
