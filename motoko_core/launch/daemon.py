"""Running the launcher and the orchestrator, here or in the background."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ZODB.POSException import StorageError

from motoko_core.daemons import Daemon, private_directory, stop_daemons, wait_until
from motoko_core.entries import HANDLE
from motoko_core.errors import MotokoError
from motoko_core.launch.generators import other_service, services
from motoko_core.launch.launcher import Launcher
from motoko_core.lifecycle import ORCHESTRATOR_LOCK, state_directory
from motoko_core.locks import held, holder
from motoko_core.states import ACTIVE, CREATED
from motoko_core.study.starting import start_servers

if TYPE_CHECKING:
    from motoko_core.study.index import RunIndex
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

logger = logging.getLogger("motoko.launcher")

ALL_STUDIES = "all"
_START_TIMEOUT_S = 30.0
#: How long a server that is about to be thrown away may take to tell which jobs are under way.
_LOOK_TIMEOUT_S = 5.0


def command(workflow: Workflow, *words: str) -> list[str]:
    """The command line of ``motoko`` for this workflow, with this interpreter."""
    directory = str(workflow.configuration.directory)
    return [sys.executable, "-m", "motoko_core.cli.main", "-C", directory, *words]


def chosen(workflow: Workflow, study: str) -> list[TaskManager]:
    """The task managers that ``--bd-study`` names."""
    if study == ALL_STUDIES:
        return list(workflow.task_managers.values())
    return [workflow.task_manager(study)]


# ---------------------------------------------------------------------- launcher


def launcher_daemon(workflow: Workflow, study: str = ALL_STUDIES, words: Sequence[str] = ()) -> Daemon:
    """The launcher in the background; one for all studies, or one per study."""
    stem = "launcher" if study == ALL_STUDIES else f"launcher-{study}"
    directory = state_directory(workflow)
    return Daemon(
        title="the launcher" if study == ALL_STUDIES else f"the launcher of {study}",
        directory=directory,
        stem=stem,
        program=tuple(command(workflow, "launcher", "--do-not-detach", "--bd-study", study, *words)),
        transcript=directory / f"{stem}.log",
        working_directory=workflow.configuration.directory,
    )


def launcher_locks(managers: Sequence[TaskManager]) -> list[Path]:
    return [manager.launcher_lock for manager in managers]


def log_tail(path: Path | None, lines: int = 12) -> str:
    try:
        text = path.read_text(errors="replace") if path else ""
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def launch(workflow: Workflow, *, study: str, generator: str | None, detach: bool) -> bool:
    """Start a launcher; answer whether one was started (False: one is at work already).

    :param detach: in the background; otherwise work here, until SIGTERM or Ctrl-C.
    :raises MotokoError: it did not start; its log says why.
    """
    managers = chosen(workflow, study)
    if study != ALL_STUDIES:
        study = managers[0].study  # an alias would give the same launcher another name
    services(workflow, managers, generator)  # what is wrong with them is said here, not in a log
    if not detach:
        run_launcher(workflow, study=study, generator=generator)
        return True
    busy = [lock for lock in launcher_locks(managers) if holder(lock) is not None]
    if busy:
        return False
    words = ["--generator", generator] if generator else []
    private_directory(state_directory(workflow))
    daemon = launcher_daemon(workflow, study, words)
    daemon.start()
    looks = itertools.count(1)

    def is_decided() -> bool:
        # zdaemon complains in the log about each time that it is asked.
        return all(map(holder, launcher_locks(managers))) or not (next(looks) % 50 or daemon.is_running())

    ready = wait_until(is_decided, _START_TIMEOUT_S)
    if not ready or not daemon.is_running():
        daemon.stop()
        raise MotokoError(f"{daemon.title} did not start", hint=f"Its log:\n{log_tail(daemon.transcript)}")
    return True


def stop_launcher(workflow: Workflow, study: str = ALL_STUDIES) -> list[str]:
    """Stop the launchers that serve a study (or any); answer the titles of those that ran."""
    names = [manager.study for manager in chosen(workflow, study)]
    if study == ALL_STUDIES:
        names.insert(0, ALL_STUDIES)
    daemons = [launcher_daemon(workflow, name) for name in names]
    return [daemon.title for daemon in stop_daemons([d for d in daemons if d.config.exists()])]


def run_launcher(
    workflow: Workflow,
    *,
    study: str = ALL_STUDIES,
    generator: str | None = None,
    keep_jobs: bool = True,
) -> None:
    """Work as a launcher until SIGTERM or SIGINT."""
    managers = chosen(workflow, study)
    served = services(workflow, managers, generator)
    hint = "`motoko kill` stops it, or `motoko launcher --log` shows what it does."
    with ExitStack() as stack:
        for manager, lock in zip(managers, launcher_locks(managers), strict=True):
            manager.base  # noqa: B018  connect (and have the server up) before anybody takes us for ready
            stack.enter_context(held(lock, f"a launcher of study {manager.study!r} is running already", hint))
        other = partial(other_service, workflow)
        asyncio.run(_serve(Launcher(served, other=other, keep_jobs=keep_jobs)))


def stop_jobs(workflow: Workflow, managers: Sequence[TaskManager]) -> None:
    """Stop the jobs that launchers have left behind: their runs are about to be dropped.

    A job that goes on would write its results into whatever run gets its number next.
    """
    try:
        start_servers([manager.database.server for manager in managers], timeout_s=_LOOK_TIMEOUT_S)
        busy = [manager for manager in managers if _has_jobs(manager.database.index)]
        if busy:
            other = partial(other_service, workflow)
            launcher = Launcher(services(workflow, busy), other=other, keep_jobs=False)
            launcher.stop()
            # In a thread: the caller may be inside an event loop.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, launcher.run()).result()
    except (MotokoError, StorageError) as error:
        logger.warning("cannot find out which jobs are under way, and leave them alone: %s", error)


def _has_jobs(index: RunIndex) -> bool:
    if (ACTIVE - {CREATED}) & index.states(None).keys():
        return True
    # A script may go on after it has said that its run is over, and a run may be reset while it is at work.
    with index.lock:
        return any(index.rows.value(run_id, HANDLE) for run_id in index.rows)


async def _serve(launcher: Launcher) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, launcher.stop)
    names = ", ".join(manager.study for manager in launcher.managers)
    logger.info("the launcher serves %s", names)
    await launcher.run()
    logger.info("the launcher has stopped")


# ---------------------------------------------------------------------- orchestrator


def orchestrator_daemon(workflow: Workflow, words: Sequence[str] = ()) -> Daemon:
    """The orchestrator in the background. It is not started again by itself, whatever its exit code."""
    directory = state_directory(workflow)
    return Daemon(
        title="the orchestrator",
        directory=directory,
        stem="wf",
        program=tuple(command(workflow, "orchestrator", "start", *words)),
        transcript=directory / "wf.log",
        exit_codes=tuple(range(256)),
        working_directory=workflow.configuration.directory,
    )


def orchestrator_pid(workflow: Workflow) -> int | None:
    """The process that holds the orchestrator's lock; None if none does."""
    return holder(state_directory(workflow) / ORCHESTRATOR_LOCK)
