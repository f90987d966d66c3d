"""``motoko launcher status``: which launchers are at work, and what they have in hand."""

from __future__ import annotations

import argparse
import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motoko_core.cli import counts
from motoko_core.cli.context import find_workflow_file, open_file
from motoko_core.cli.output import say, table
from motoko_core.cli.studies import created_studies
from motoko_core.states import ACTIVE, CREATED, START, TOBELAUNCHED, is_failure

if TYPE_CHECKING:
    from motoko_core.launch.found import FoundLauncher
    from motoko_core.workflow import Workflow

_LAUNCHED = ACTIVE - {CREATED, TOBELAUNCHED, START}


def status(args: argparse.Namespace) -> int:
    """Show the launchers, and how far the runs of each study are. Reads the databases' files."""
    from motoko_core.launch.found import launchers
    from motoko_core.launch.generators import generator_name

    path = find_workflow_file(args.motoko_directory)
    studies = created_studies(path, args.bd_study)
    workflow = open_file(path)
    found = launchers(workflow, [workflow.task_managers[study.name] for study in studies])
    override = {name: each.generator for each in found for name in each.studies}
    listed: dict[str, dict[str, Any]] = {}
    for study in studies:
        manager = workflow.task_managers[study.name]
        settings = workflow.configuration.task_managers[study.name]
        with study.snapshot() as content:
            states = counts.by_state(run.entries for run in content.runs())
        listed[study.name] = {
            "generator": generator_name(workflow, manager, override.get(study.name)),
            "slots": settings.slots,
            "max_running": settings.max_running,
            "runs": _stages(states),
        }
    if args.json:
        say(json.dumps(_content(workflow, found, listed), indent=2))
        return 0
    for launcher in found:
        say(_line(launcher))
    idle = [name for name in listed if name not in override]
    if idle:
        what = "no launcher is running" if not found else f"no launcher serves {', '.join(idle)}"
        say(f"{what}; `motoko launcher` starts one")
    say()
    table(
        ("study", "generator", "limits", "runs"),
        [(name, each["generator"], _limits(each), _runs(each["runs"])) for name, each in listed.items()],
    )
    return 0


def _limits(listed: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {listed[key]}" for key in ("slots", "max_running") if listed[key])


def _runs(stages: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {stage}" for stage, number in stages.items() if number) or "none"


def _stages(states: Mapping[str, int]) -> dict[str, int]:
    """How many runs have come how far."""

    def count(*wanted: str) -> int:
        return sum(states.get(state, 0) for state in wanted)

    failed = sum(number for state, number in states.items() if is_failure(state))
    return {
        "waiting": count(CREATED),
        "claimed": count(TOBELAUNCHED),
        "launched": count(*_LAUNCHED),
        "started": count(START),
        "done": sum(states.values()) - count(*ACTIVE) - failed,
        "failed": failed,
    }


def _line(launcher: FoundLauncher) -> str:
    where = f" on {launcher.host}" if launcher.host else ""
    whose = " of `motoko run`" if launcher.is_of_run else ""
    text = f"the launcher{whose} (process {launcher.pid or 'unknown'}{where})"
    text += f" serves {', '.join(launcher.studies)}"
    if launcher.since is not None:
        text += f" since {_time(launcher.since)}"
    if launcher.log:
        text += f"; its log: {launcher.log}"
    elif not launcher.host:
        text += f"; {_output(launcher.pid)}"
    return text


def _output(pid: int | None) -> str:
    """Say what becomes of what a launcher without a log of its own writes."""
    path = Path(f"/proc/{pid}/fd/1")
    try:
        place = str(path.readlink())
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # no such directory on this system, or it has just ended
        return "it has no log"
    try:
        if os.isatty(descriptor):
            return "it writes to the terminal that it was started in"
        if not place.startswith("pipe:"):
            return f"its log: {place}"
        poll = select.poll()
        poll.register(descriptor, 0)
        if poll.poll(0):  # nobody reads from it, see pipe(7) and poll(2): POLLERR
            return "what it writes is lost, because the process that started it was killed"
        return "it writes to the program that started it"
    finally:
        os.close(descriptor)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _content(
    workflow: Workflow, found: Sequence[FoundLauncher], listed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    launchers = [
        {
            "pid": each.pid,
            "host": each.host,
            "since": None if each.since is None else time.strftime("%FT%T%z", time.localtime(each.since)),
            "studies": list(each.studies),
            "generator": each.generator,
            "log": None if each.log is None else str(each.log),
            "is_of_run": each.is_of_run,
        }
        for each in found
    ]
    return {"workflow": workflow.config_path, "launchers": launchers, "studies": listed}
