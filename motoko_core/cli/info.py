"""``motoko info``: states per study."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from motoko_core.cli import counts
from motoko_core.cli.context import chosen_managers, open_workflow, require_created
from motoko_core.cli.output import say, table
from motoko_core.cli.parser import ArgumentParser, add_study, add_verbose
from motoko_core.interfaces import CliCommand
from motoko_core.states import is_failure

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow


def configure(parser: argparse.ArgumentParser) -> None:
    assert isinstance(parser, ArgumentParser)
    add_verbose(parser, "list the runs, and what is running in the background")
    add_study(parser, "show this study only")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.epilog = "`motoko info - ARGUMENTS` calls `canYouDigIt ARGUMENTS` in the directory of each study."
    forwarded = None
    if "-" in parser.words:
        place = parser.words.index("-")
        forwarded = parser.words[place + 1 :]
        del parser.words[place:]
    parser.set_defaults(forwarded=forwarded)


def run(args: argparse.Namespace) -> int:
    workflow = open_workflow(args)
    managers = chosen_managers(workflow, args)
    require_created(managers)
    if args.forwarded is not None:
        return _forward(managers, args.forwarded)

    from motoko_core.study.snapshot import runs_of, snapshot

    found, runs = {}, {}
    for manager in managers:
        with snapshot(manager) as base:
            found[manager.study] = counts.by_run_name(runs_of(base))
            if args.verbose:
                runs[manager.study] = _runs(base)
    if args.json:
        say(_json(workflow, found, runs))
        return 0
    counts.show(
        (study, name, states)
        for study, names in found.items()
        for name, states in (names or {"": {}}).items()
    )
    for study, listed in runs.items():
        say()
        _show_runs(study, listed)
    if args.verbose:
        say()
        for line in _background(workflow, managers):
            say(line)
    return 0


def _forward(managers: list[TaskManager], words: list[str]) -> int:
    import subprocess

    from motoko_core.cli.output import complain
    from motoko_core.daemons import environment

    code = 0
    for manager in managers:
        complain(f"# {manager.study}")
        result = subprocess.run(
            ["canYouDigIt", *words], cwd=manager.study_dir, env=environment(), check=False
        )
        code = code or int(result.returncode != 0)
    return code


# ---------------------------------------------------------------------- runs


def _runs(base: Any) -> list[dict[str, Any]]:
    from motoko_core.study.snapshot import runs_of

    jobs = base._get_jobs().entries
    found = []
    for run_id, entries in runs_of(base):
        listed = {key: entries.get(key) for key in ("job_id", "run_name", "event_name", "state")}
        job = jobs.get(entries.get("job_id"))
        parameters = {} if job is None else {k: v for k, v in job.entries.items() if k != "id"}
        failure = entries.get("failure") if is_failure(entries.get("state")) else None
        found.append({"id": run_id, **listed, "job": parameters, "failure": failure})
    return found


def _show_runs(study: str, runs: list[dict[str, Any]]) -> None:
    if not runs:
        say(f"{study}: no runs")
        return
    rows = []
    for run in runs:
        parameters = " ".join(f"{name}={value}" for name, value in run["job"].items())
        rows.append(
            (
                f"{study}.{run['id']}",
                run["job_id"],
                run["run_name"],
                run["event_name"],
                run["state"],
                parameters,
                _reason(run["failure"]),
            )
        )
    table(("run", "job", "run_name", "event_name", "state", "parameters", "failure"), rows)


def _reason(failure: Any) -> str:
    if not failure:
        return ""
    code = failure.get("exit_code")
    return str(failure.get("reason", "")) + (f" (exit code {code})" if code is not None else "")


# ---------------------------------------------------------------------- daemons


def _background(workflow: Workflow, managers: list[TaskManager]) -> list[str]:
    from motoko_core.cli.orchestrator import status_line
    from motoko_core.launch.daemon import launcher_locks
    from motoko_core.locks import holder

    lines = [status_line(workflow)]
    for manager, lock in zip(managers, launcher_locks(managers), strict=True):
        pid = holder(lock)
        launcher = "no launcher" if pid is None else f"a launcher (process {pid})"
        server = manager.database.server
        up = f"its server is up at {server.address}" if server.is_up() else "its server is down"
        lines.append(f"{manager.study} has {launcher}; {up}")
    return lines


def _json(workflow: Workflow, found: dict[str, Any], runs: dict[str, Any]) -> str:
    from motoko_core.launch.daemon import launcher_locks, orchestrator_pid
    from motoko_core.locks import holder

    studies = {}
    for study, names in found.items():
        manager = workflow.task_managers[study]
        studies[study] = {
            "states": names,
            "launcher_pid": holder(launcher_locks([manager])[0]),
            "server_is_up": manager.database.server.is_up(),
            **({"runs": runs[study]} if study in runs else {}),
        }
    content = {
        "workflow": workflow.config_path,
        "orchestrator_pid": orchestrator_pid(workflow),
        "studies": studies,
    }
    return json.dumps(content, indent=2, default=str)


COMMAND = CliCommand(name="info", help="show the states of the runs", configure=configure, run=run)
