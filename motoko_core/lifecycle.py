"""Creating, starting, stopping and removing what a workflow consists of on disk and in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.config import require_study_files
from motoko_core.errors import AlreadyRunning, MotokoError
from motoko_core.locks import holder
from motoko_core.study.datafile import require_writable
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.variables import ensure_created

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

ORCHESTRATOR_LOCK = "orchestrator.lock"


def state_directory(workflow: Workflow) -> Path:
    """The workflow's ``.wf``."""
    return workflow.configuration.directory / ".wf"


def runs_directory(manager: TaskManager) -> Path:
    """Where a study's run directories are: ``BD-<study>-runs``."""
    config = manager.study_config
    return config.directory / f"BD-{config.name}-runs"


def run_directory(manager: TaskManager, run_id: int) -> Path:
    """Where a run is executed. Its entry ``run_path`` may name another place.

    In a copy of a workflow it names the original's directory, and users may write anything there.
    """
    return runs_directory(manager) / f"run-{run_id}"


def servers(workflow: Workflow, managers: Iterable[TaskManager] | None = None) -> list[Server]:
    """The servers of some task managers (None: all), and of the workflow variables if they exist."""
    chosen = workflow.task_managers.values() if managers is None else managers
    found = [manager.database.server for manager in chosen]
    variables = workflow.vars.database.server
    if variables.data.exists():
        found.append(variables)
    return found


def refuse_while_running(workflow: Workflow, what: str) -> None:
    """:raises AlreadyRunning: an orchestrator is at work."""
    pid = holder(state_directory(workflow) / ORCHESTRATOR_LOCK)
    if pid is not None:
        raise AlreadyRunning(
            f"cannot {what}: an orchestrator is running here (process {pid})",
            where=str(workflow.configuration.directory),
            hint="Stop it first: `motoko orchestrator stop`.",
        )


def refuse_while_launching(workflow: Workflow) -> None:
    """:raises AlreadyRunning: a launcher is at work that is not in the background."""
    for manager in workflow.task_managers.values():
        pid = holder(manager.launcher_lock)
        if pid is not None:
            raise AlreadyRunning(
                f"cannot create the studies anew: a launcher serves {manager.study!r} (process {pid})",
                where=str(workflow.configuration.directory),
                hint="Stop it first: Ctrl-C where it runs, or `motoko kill`.",
            )


def what_would_be_dropped(workflow: Workflow) -> list[Path]:
    """Databases and run directories that :func:`reset` would remove."""
    places = [state_directory(workflow) / "wf.db"]
    for manager in workflow.task_managers.values():
        places += [manager.database.server.data, runs_directory(manager)]
    return [place for place in places if place.exists()]


def disconnect(workflow: Workflow) -> None:
    """Close this process's connections."""
    for manager in workflow.task_managers.values():
        manager.database.close()
    workflow.vars.database.close()


def reset(workflow: Workflow, managers: Iterable[TaskManager] | None = None) -> None:
    """Stop jobs and servers of some studies (None: everything), remove their data and run directories."""
    from motoko_core.launch.daemon import stop_jobs

    chosen = list(workflow.task_managers.values() if managers is None else managers)
    stop_jobs(workflow, [m for m in chosen if m.database.server.is_local and m.database.exists])
    disconnect(workflow)
    stop_servers(servers(workflow, chosen))
    for manager in chosen:
        if manager.database.server.is_local:
            shutil.rmtree(manager.database.server.directory, ignore_errors=True)
            shutil.rmtree(runs_directory(manager), ignore_errors=True)
    if managers is None:
        shutil.rmtree(state_directory(workflow), ignore_errors=True)


def create_missing(workflow: Workflow) -> list[str]:
    """Create the studies and the workflow database that do not exist; answer the names of the new studies."""
    for manager in workflow.task_managers.values():
        require_study_files(manager.study_config)
    created = []
    for name, manager in workflow.task_managers.items():
        if not manager.database.exists:
            manager.database.create()
            created.append(name)
    ensure_created(workflow.vars.database)
    return created


def create(workflow: Workflow, validated: bool | None, ask: Callable[[str], bool]) -> bool:
    """Make all studies anew and start their servers; ask before anything is dropped.

    :param validated: True: do not ask.
    :param ask: puts a question to the user.
    :returns: False if the user said no; nothing was touched then.
    """
    from motoko_core.launch.daemon import stop_launcher

    for manager in workflow.task_managers.values():
        require_study_files(manager.study_config)
    refuse_while_running(workflow, "create the studies anew")
    for server in servers(workflow):
        if server.is_local:
            require_writable(server.title, server.directory.parent)
            require_writable(server.title, server.directory)
    dropped = what_would_be_dropped(workflow)
    if dropped and not validated:
        listing = "\n".join(f"  {place}" for place in dropped)
        if not ask(f"This drops all jobs, runs and results:\n{listing}\nGo on?"):
            return False
    stop_launcher(workflow)
    refuse_while_launching(workflow)
    reset(workflow)
    create_missing(workflow)
    start_servers(servers(workflow))
    return True


@contextmanager
def running_servers(workflow: Workflow, managers: Iterable[TaskManager] | None = None) -> Iterator[None]:
    """Have the servers up; afterwards, stop the ones that were started for it.

    :raises MotokoError: a study was not created yet.
    """
    chosen = list(workflow.task_managers.values() if managers is None else managers)
    missing = [manager.study for manager in chosen if not manager.database.exists]
    if missing:
        raise MotokoError(
            f"the studies {', '.join(missing)} were not created yet",
            where=str(workflow.configuration.path),
            hint="`motoko create` makes all studies; `motoko run` makes those that are missing, and runs.",
        )
    started = start_servers(servers(workflow, chosen))
    try:
        yield
    finally:
        disconnect(workflow)
        stop_servers(started)
