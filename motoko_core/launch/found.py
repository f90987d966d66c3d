"""Which launchers and jobs are at work, as the locks of the studies and the list of processes tell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import psutil

from motoko_core.daemons import is_gone
from motoko_core.exit_record import TAG_VARIABLE, exit_record_path
from motoko_core.launch.daemon import command
from motoko_core.lifecycle import run_directory, runs_directory, state_directory
from motoko_core.locks import Holder, who_holds

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: What `motoko run` starts its own launcher with.
CANCEL_ON_EXIT = "--cancel-on-exit"
#: The program that the bash generator has its jobs started by.
SPAWNER = "_spawner.py"


@attrs.frozen(kw_only=True)
class FoundLauncher:
    """A launcher at work.

    :param pid: its process id; None if it is not known.
    :param host: the machine that it works on, if that is not this one.
    :param studies: the task managers that it serves.
    :param since: when it was started, in seconds since 1970.
    :param generator: the generator that its command line names; None: those of motoko.yaml.
    :param log: the log that Motoko keeps of it; None: it was started in a terminal, or its manager is gone.
    :param is_of_run: whether it belongs to a ``motoko run``.
    """

    pid: int | None
    host: str | None
    studies: tuple[str, ...]
    since: float | None = None
    generator: str | None = None
    log: Path | None = None
    is_of_run: bool = False


def launchers(workflow: Workflow, managers: Sequence[TaskManager]) -> list[FoundLauncher]:
    """The launchers that serve some studies, in the order of their first study."""
    studies: dict[Holder, list[str]] = {}
    for manager in managers:
        holder = who_holds(manager.launcher_lock)
        if holder is not None:
            studies.setdefault(holder, []).append(manager.study)
    return [_found(workflow, holder, names) for holder, names in studies.items()]


def _found(workflow: Workflow, holder: Holder, studies: Sequence[str]) -> FoundLauncher:
    known = FoundLauncher(
        pid=holder.pid, host=None if holder.is_here else holder.host, studies=tuple(studies)
    )
    if holder.pid is None or not holder.is_here:
        return known
    try:
        process = psutil.Process(holder.pid)
        with process.oneshot():
            since, words = process.create_time(), process.cmdline()
            above = process.parent()
        manager = above.cmdline() if above else []
    except psutil.Error:  # it has just ended
        return known
    is_of_run = CANCEL_ON_EXIT in words
    directory = state_directory(workflow)
    configs = [Path(b) for a, b in pairwise(manager) if a == "-C" and Path(b).parent == directory]
    log = (directory / configs[0].name).with_suffix(".log") if configs else None
    return attrs.evolve(
        known,
        since=since,
        generator=next((b for a, b in pairwise(words) if a == "--generator"), None),
        log=directory / "launcher.log" if is_of_run else log,
        is_of_run=is_of_run,
    )


def without_lock(workflow: Workflow) -> list[int]:
    """Launchers in the background that serve nothing: they have just begun, or wait for a server."""
    words = command(workflow, "launcher")[1:]
    serving = {found.pid for found in launchers(workflow, list(workflow.task_managers.values()))}
    pids = []
    for process in own_processes():
        with suppress(psutil.Error):
            if process.pid not in serving and process.cmdline()[1 : len(words) + 1] == words:
                pids.append(process.pid)
    return pids


# ---------------------------------------------------------------------- jobs


@attrs.frozen
class FoundJob:
    """A process that belongs to a job of this machine.

    :param task: the run's reference, such as ``add.3``.
    """

    process: psutil.Process
    task: str
    tag: str


def jobs(managers: Sequence[TaskManager]) -> list[FoundJob]:
    """The processes of jobs of some studies: they have the tag of their execution in their environment."""
    found = []
    for process in own_processes():
        try:
            tag = process.environ().get(TAG_VARIABLE)
            place = process.cwd() if tag else ""
        except (psutil.Error, OSError):
            continue
        for manager in managers if tag else ():
            if (run_id := _run_of(manager, str(tag), Path(place))) is not None:
                found.append(FoundJob(process, f"{manager.study}.{run_id}", str(tag)))
                break
    return found


def own_processes() -> Iterator[psutil.Process]:
    """This user's processes, but not this one, nor those that it was started by."""
    ours = _ancestors() | {os.getpid()}
    for process in psutil.process_iter(["uids"]):
        uids = process.info["uids"]
        if uids is not None and uids.real == os.getuid() and process.pid not in ours and not is_gone(process):
            yield process


def _ancestors() -> set[int]:
    while True:
        # (One that ends meanwhile has left its child to another.)
        with suppress(psutil.NoSuchProcess):
            return {process.pid for process in psutil.Process().parents()}


def _run_of(manager: TaskManager, tag: str, place: Path) -> int | None:
    """The run that a process with this tag and this current directory is of; None if it is none of ours."""
    match = re.fullmatch(rf"motoko-{re.escape(manager.study)}-(\d+)-\w+", tag)
    if match is None:
        return None
    # Other workflows have studies of the same name.
    run_id = int(match[1])
    ours = place.is_relative_to(runs_directory(manager))  # its directory may have been removed
    return run_id if ours or exit_record_path(run_directory(manager, run_id), tag).exists() else None


def helpers(launcher_pids: Iterable[int], found: Iterable[FoundJob]) -> list[psutil.Process]:
    """Processes that some launchers have started, and those that jobs were started by, but no jobs."""
    helping: dict[int, psutil.Process] = {}
    tagged = {job.process.pid for job in found}
    for pid in launcher_pids:
        with suppress(psutil.Error):
            helping.update((child.pid, child) for child in psutil.Process(pid).children())
    for job in found:
        with suppress(psutil.Error):
            parent = job.process.parent()
            if parent and any(Path(word).name == SPAWNER for word in parent.cmdline()):
                helping[parent.pid] = parent
    return [process for pid, process in helping.items() if pid not in tagged]
