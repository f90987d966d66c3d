"""``motoko info``: states per study."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from motoko_core.cli import counts
from motoko_core.cli.context import find_workflow_file, open_file
from motoko_core.cli.output import complain, say, table
from motoko_core.cli.parser import ArgumentParser, add_study, add_verbose
from motoko_core.entries import stored_failure
from motoko_core.interfaces import CliCommand
from motoko_core.states import is_failure

if TYPE_CHECKING:
    from motoko_core.cli.studies import Study
    from motoko_core.study.record import Snapshot
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
    from motoko_core.cli.studies import created_studies

    path = find_workflow_file(args.motoko_directory)
    studies = created_studies(path, args.bd_study)
    if args.forwarded is not None:
        return _forward(studies, args.forwarded)
    found, runs = {}, {}
    for study in studies:
        with study.snapshot() as content:
            found[study.name] = counts.by_run_name(run.entries for run in content.runs())
            if args.verbose:
                runs[study.name] = _runs(content)
    if args.json:
        say(_json(open_file(path), found, runs))
        return 0
    counts.show(
        (study, name, states)
        for study, names in found.items()
        for name, states in (names or {"": {}}).items()
    )
    for name, listed in runs.items():
        say()
        _show_runs(name, listed)
    if args.verbose:
        say()
        for line in _background(open_file(path), list(found)):
            say(line)
    return 0


def _forward(studies: Iterable[Study], words: list[str]) -> int:
    import subprocess

    from motoko_core.daemons import environment

    code = 0
    for study in studies:
        complain(f"# {study.name}")
        result = subprocess.run(
            ["canYouDigIt", *words], cwd=study.config.directory, env=environment(), check=False
        )
        code = code or int(result.returncode != 0)
    return code


# ---------------------------------------------------------------------- runs


def _runs(content: Snapshot) -> list[dict[str, Any]]:
    found = []
    for run in content.runs():
        entries = run.entries
        listed = {key: entries.get(key) for key in ("job_id", "run_name", "event_name", "state")}
        job = content.job(entries.get("job_id"))
        parameters = {} if job is None else {k: v for k, v in job.entries.items() if k != "id"}
        failure = stored_failure(entries) if is_failure(entries.get("state")) else None
        found.append({"id": run.id, **listed, "job": parameters, "failure": failure or None})
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


def _background(workflow: Workflow, studies: Iterable[str]) -> list[str]:
    from motoko_core.cli.orchestrator import status_line
    from motoko_core.launch.daemon import launcher_locks
    from motoko_core.locks import holder

    managers = [workflow.task_managers[study] for study in studies]
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
