"""Limits of one task manager in motoko.yaml: ``slots`` and ``max_running``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import create_tasks, set_state
from tests.launching import entries_of, launching, read_line, release, settled

COUNTED = "echo 1 >> {log}; true; true; echo -1 >> {log}"


def most_at_a_time(log: Path) -> int:
    at_work = most = 0
    for line in log.read_text().split():
        at_work += int(line)
        most = max(most, at_work)
    return most


def limited(launcher: Launcher, workflow: Workflow, **limits: Any) -> None:
    """Set limits of ``mult``, before the launcher's first round."""
    generator = launcher.services[workflow.mult].generator
    launcher.services[workflow.mult] = Service(generator=generator, **limits)


@pytest.mark.parametrize("limits", [{"max_running": 2}, {"slots": 2}])
async def test_no_more_runs_of_the_task_manager_than_the_limit(
    scripts: Workflow, tmp_path: Path, limits: dict[str, int]
) -> None:
    log = tmp_path / "log"
    async with launching(scripts, slots=8) as launcher:
        limited(launcher, scripts, **limits)
        runs = create_tasks(scripts, label=COUNTED.format(log=log), n=list(range(20)))
        ends = await settled(scripts, *runs)
    assert {entries["state"] for entries in ends} == {"FINISHED"}
    assert 1 <= most_at_a_time(log) <= 2


async def test_a_limit_holds_for_its_task_manager_alone(scripts: Workflow, fifo: Path) -> None:
    async with launching(scripts, slots=8) as launcher:
        limited(launcher, scripts, max_running=1)
        (held,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        others = create_tasks(scripts, study="add", label="true", n=[1, 2, 3])
        await settled(scripts, *others)
        await release(fifo)
        await settled(scripts, held)


async def test_a_run_wider_than_the_slots_runs_alone(scripts: Workflow, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = COUNTED.format(log=log)
    async with launching(scripts, slots=8) as launcher:
        limited(launcher, scripts, slots=2)
        wide = create_tasks(scripts, label=script, n=[1, 2], run_params={"nproc": 4})
        narrow = create_tasks(scripts, label=script, n=[3, 4])
        await settled(scripts, *wide, *narrow)
    assert most_at_a_time(log) <= 2


async def test_task_managers_may_have_different_generators(scripts: Workflow, fifo: Path) -> None:
    async with launching(scripts, slots=1) as launcher:
        launcher.services[scripts.add] = Service(generator=BashGenerator(BashOptions(slots=1)))
        (held,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        (other,) = create_tasks(scripts, study="add", label="exit 4")
        (entries,) = await settled(scripts, other)
        assert entries["motoko_failure"]["exit_code"] == 4
        await release(fifo)
        await settled(scripts, held)


@pytest.mark.parametrize("nproc", [0, -5])
async def test_a_run_that_asks_for_no_processors_does_not_make_room_for_others(
    scripts: Workflow, tmp_path: Path, nproc: int
) -> None:
    log = tmp_path / "log"
    (odd,) = create_tasks(scripts, label="true", run_params={"nproc": nproc})
    async with launching(scripts, slots=8) as launcher:
        limited(launcher, scripts, slots=1)
        runs = create_tasks(scripts, label=COUNTED.format(log=log), n=list(range(8)))
        (entries, *_) = await settled(scripts, odd, *runs)
    assert entries["motoko_failure"]["reason"] == "SUBMIT"
    assert most_at_a_time(log) == 1


@pytest.mark.parametrize("not_before", [float("nan"), "soon", -(10**400)])
async def test_a_time_that_is_none_holds_up_nobody(scripts: Workflow, not_before: object) -> None:
    (odd, never) = create_tasks(scripts, label="true", n=[1, 2])
    set_state(scripts, odd, "CREATED", motoko_not_before=not_before)
    set_state(scripts, never, "CREATED", motoko_not_before=10**400)
    async with launching(scripts):
        (entries,) = await settled(scripts, odd)
    assert entries["state"] == "FINISHED"
    assert entries_of(scripts, never)["state"] == "CREATED"
