"""Which launchers are at work, as the locks of the studies and the list of processes tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import psutil

from motoko_core.lifecycle import state_directory
from motoko_core.locks import Holder, who_holds

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: What `motoko run` starts its own launcher with.
CANCEL_ON_EXIT = "--cancel-on-exit"


@attrs.frozen(kw_only=True)
class FoundLauncher:
    """A launcher at work.

    :param pid: its process id; None if it is not known.
    :param host: the machine that it works on, if that is not this one.
    :param studies: the task managers that it serves.
    :param since: when it was started, in seconds since 1970.
    :param generator: the generator that its command line names; None: those of motoko.yaml.
    :param log: what it writes to; None: the terminal that it was started in.
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
