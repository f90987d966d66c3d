"""Ending processes that Motoko started, or found."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from motoko_core.daemons import is_gone, wait_until
from motoko_core.lifecycle import state_directory

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: A launcher gives jobs five seconds to end, an orchestrator ten to its callbacks.
_TIMEOUT_S = 30.0


def terminate(pid: int, timeout_s: float = _TIMEOUT_S) -> bool:
    """Ask a process to end, and make it; answer whether it was there."""
    try:
        process = psutil.Process(pid)
        process.terminate()
    except psutil.NoSuchProcess:
        return False
    if not wait_until(lambda: is_gone(process), timeout_s):
        process.kill()
        wait_until(lambda: is_gone(process), timeout_s)
    return True


def stop_launchers(
    workflow: Workflow, managers: list[TaskManager], *, everything: bool, of_runs: bool = False
) -> tuple[list[str], list[str]]:
    """Stop the launchers of some studies, in the background or in a terminal; their jobs go on.

    :param everything: also those that serve no study at the moment.
    :param of_runs: also those that a ``motoko run`` has started for itself, and stops its jobs with.
    :return: the titles of those that were stopped, and why others were not.
    """
    from motoko_core.launch.daemon import stop_launcher
    from motoko_core.launch.found import launchers, without_lock

    names = ["all"] if everything else [manager.study for manager in managers]
    stopped = [title for name in names for title in stop_launcher(workflow, name)]
    wanted = {manager.study for manager in managers}
    others = []
    for found in launchers(workflow, list(workflow.task_managers.values())):
        title = f"a launcher (process {found.pid or 'unknown'})"
        if wanted.isdisjoint(found.studies):
            continue
        if found.host:
            others.append(f"{title} serves {', '.join(found.studies)} on {found.host}: stop it there")
        elif not wanted.issuperset(found.studies):
            others.append(f"{title} serves {', '.join(found.studies)}, and goes on: stop it for all of them")
        elif found.is_of_run and not of_runs:
            others.append(f"{title} belongs to a `motoko run`: stop that, with Ctrl-C or `motoko kill`")
        elif found.pid not in (None, os.getpid()) and terminate(found.pid):
            stopped.append(title)
    for pid in without_lock(workflow) if everything else ():
        if terminate(pid):
            stopped.append(f"a launcher (process {pid})")
    return stopped, others


def kill_servers(workflow: Workflow, managers: list[TaskManager], *, everything: bool) -> list[str]:
    """Kill ZEO servers and their managers that no socket leads to; with ``everything``, all of this user."""
    directories = {manager.database.server.directory.resolve() for manager in managers}
    directories.add(state_directory(workflow).resolve())
    killed = []
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        words = process.info["cmdline"] or []
        uids = process.info["uids"]
        # Both the server and the zdaemon manager above it have the word on their command lines.
        if uids is None or uids.real != os.getuid() or not any(Path(w).name == "runzeo" for w in words):
            continue
        configs = [b for a, b in pairwise(words) if a == "-C"]
        ours = any(Path(config).resolve().parent in directories for config in configs)
        if configs and (ours or everything):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            killed.append(f"process {process.pid} ({' '.join(configs)})")
    return killed
