"""Runs whose entry ``cancel`` says that they are to be stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.launching import entries_of, launching, read_line, release, settled

CANCELLED = {"reason": "CANCELLED", "attempt": 1, "stderr": ""}


async def test_a_run_that_is_marked_is_stopped_and_the_others_go_on(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    async with launching(scripts, slots=2):
        (doomed,) = create_tasks(scripts, label=f"echo > {fifo}; sleep 1000; touch {tmp_path}/end")
        await read_line(fifo)
        (other,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        set_state(scripts, doomed, "launched", cancel="now")
        (entries,) = await settled(scripts, doomed)
        await release(fifo)
        (fine,) = await settled(scripts, other)
    assert entries["state"] == "FAILED"
    assert entries["failure"] == {**CANCELLED, "exit_code": -15}
    assert "cancel" not in entries
    assert fine["state"] == "FINISHED"
    assert not (tmp_path / "end").exists()


async def test_a_run_that_waits_in_the_generator_never_starts(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    async with launching(scripts, slots=1):
        # Short ones first, so that some are taken ahead.
        short = create_tasks(scripts, label="true", n=list(range(20)))
        held, waiting = create_tasks(
            scripts, label=f"echo > {fifo}; read < {fifo}; touch {tmp_path}/$BLACKDYNAMITE_RUN_ID", n=[21, 22]
        )
        await settled(scripts, *short)
        await read_line(fifo)
        if entries_of(scripts, waiting)["state"] != "CREATED":
            set_state(scripts, waiting, "launched", cancel="now")
            (entries,) = await settled(scripts, waiting)
            assert entries["failure"]["reason"] == "CANCELLED"
        await release(fifo)
        await settled(scripts, held)


async def only_cancel(workflow: Workflow) -> None:
    services = {
        manager: Service(generator=BashGenerator(BashOptions(slots=2)))
        for manager in workflow.task_managers.values()
    }
    await asyncio.wait_for(Launcher(services).run(launching=False), TIMEOUT_S)


async def test_without_a_launcher_marked_runs_are_stopped_and_nothing_is_launched(
    scripts: Workflow, fifo: Path
) -> None:
    async with launching(scripts, slots=2, keep_jobs=True):
        (doomed,) = create_tasks(scripts, label=f"echo > {fifo}; sleep 1000", n=1)
        await read_line(fifo)
        (other,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}; exit 3", n=2)
        await read_line(fifo)
    set_state(scripts, doomed, "launched", cancel="now")
    (waiting,) = create_tasks(scripts, label="true", n=3)
    await only_cancel(scripts)
    assert entries_of(scripts, doomed)["failure"]["reason"] == "CANCELLED"
    assert entries_of(scripts, other)["state"] == "launched"
    assert entries_of(scripts, waiting)["state"] == "CREATED"
    async with launching(scripts, slots=2):
        await release(fifo)
        (entries, _) = await settled(scripts, other, waiting)
    assert entries["failure"]["exit_code"] == 3


async def test_a_marked_run_that_never_started_is_not_launched_again(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    # As a launcher leaves it that dies before it submits.
    set_state(scripts, run, "TOBELAUNCHED", handle='{"tag": "motoko-x"}', cancel="now")
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["failure"]) == ("FAILED", {**CANCELLED, "exit_code": None})


async def test_a_mark_of_an_earlier_execution_is_forgotten(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "CREATED", cancel="long ago")
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
