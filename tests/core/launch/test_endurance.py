"""What a launcher in the background has used up after thousands of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from motoko_core.daemons import wait_until
from motoko_core.launch.daemon import launch, launcher_locks, stop_launcher
from motoko_core.locks import holder
from motoko_core.session import transact
from motoko_core.study.feed import feed_of
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks
from tests.processes import is_zombie

RUNS = 2000


@pytest.fixture
def idle(scripts: Workflow) -> Iterator[Workflow]:
    yield scripts
    stop_launcher(scripts)


def family(launcher: psutil.Process) -> list[psutil.Process]:
    """A launcher with its spawner, whose jobs come and go."""
    return [launcher, *(p for p in launcher.children() if "_spawner.py" in " ".join(p.cmdline()))]


def processes_in(directory: Path) -> list[psutil.Process]:
    """The processes whose working directory is a run directory."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if str(directory) in (process.info["cwd"] or ""):
            found.append(process)
    return found


async def all_finished(workflow: Workflow, count: int) -> None:
    def finished() -> int:
        constraints = ["state = FINISHED", f"run_name = {workflow.run_name}"]
        return transact("the test", lambda: len(workflow.mult.select(constraints)))

    async def look() -> None:
        with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
            while finished() < count:
                await anext(changes)

    await asyncio.wait_for(look(), TIMEOUT_S)


async def test_2000_runs_leave_no_zombie_no_open_file_and_no_process(
    idle: Workflow, launch_directory: Path, tmp_path: Path
) -> None:
    launch(idle, study="all", generator=None, detach=True)
    pid = holder(launcher_locks([idle.mult])[0])
    assert pid
    create_tasks(idle, label="true", n=list(range(50)))
    await all_finished(idle, 50)
    ours = family(psutil.Process(pid))
    before = [process.num_fds() for process in ours]

    log = tmp_path / "log"
    runs = create_tasks(idle, label=f"echo mult.$BLACKDYNAMITE_RUN_ID >> {log}", n=list(range(50, 50 + RUNS)))
    await all_finished(idle, 50 + RUNS)
    assert sorted(log.read_text().split()) == sorted(runs)

    # (Those of the last jobs are closed in the next moment.)
    assert await asyncio.to_thread(
        wait_until, lambda: [process.num_fds() for process in ours] <= before, TIMEOUT_S
    )
    children = [child for process in ours for child in process.children(recursive=True)]
    assert [child for child in children if is_zombie(child)] == []
    assert family(psutil.Process(pid)) == ours
    assert processes_in(launch_directory / "mult" / "BD-mult-runs") == []

    stop_launcher(idle)
    assert await asyncio.to_thread(wait_until, lambda: not any(p.is_running() for p in ours), TIMEOUT_S)
