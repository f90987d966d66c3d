"""Runs that wait, or that a launcher has left behind, are cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from motoko_core.daemons import wait_until
from motoko_core.entries import CANCEL
from motoko_core.errors import RunFailed
from motoko_core.launch.cancelling import Cancellation
from motoko_core.locks import held, holder
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, number, orchestrate, set_state
from tests.launching import entries_of, launching, read_line, settled, soon


def cancellation(workflow: Workflow, *references: str) -> Cancellation:
    runs: dict[object, list[int]] = {}
    for reference in references:
        runs.setdefault(workflow.task_managers[reference.partition(".")[0]], []).append(number(reference))
    return Cancellation(workflow, runs)  # type: ignore[arg-type]


async def cancel(workflow: Workflow, *references: str) -> Cancellation:
    """Cancel runs that no launcher serves."""
    cancelling = cancellation(workflow, *references)
    cancelling.ask()

    async def look() -> None:
        while not cancelling.is_done:
            await asyncio.to_thread(cancelling.look)

    await soon(look())
    return cancelling


async def left_behind(workflow: Workflow, fifo: Path, script: str) -> str:
    """A job under way whose launcher has ended."""
    (run,) = create_tasks(workflow, label=script)
    async with launching(workflow, keep_jobs=True):
        await read_line(fifo)
    return run


async def test_runs_that_wait_are_cancelled(scripts: Workflow) -> None:
    first, second = create_tasks(scripts, n=[1, 2])
    (other,) = create_tasks(scripts, study="add")
    cancelling = cancellation(scripts, first, other)
    cancelling.ask()
    assert cancelling.is_done
    assert (cancelling.cancelled, cancelling.ended) == (2, 0)
    for run in (first, other):
        entries = entries_of(scripts, run)
        assert entries["state"] == "FAILED"
        assert entries["motoko_failure"] == {
            "reason": "CANCELLED",
            "exit_code": None,
            "attempt": 1,
            "stderr": "",
        }
    assert entries_of(scripts, second)["state"] == "CREATED"


async def test_a_run_that_waits_for_its_next_attempt_keeps_the_number(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts)
    set_state(scripts, run, "CREATED", motoko_not_before=9e9, motoko_failure={"reason": "LOST", "attempt": 2})
    await cancel(scripts, run)
    entries = entries_of(scripts, run)
    assert (entries["motoko_failure"]["reason"], entries["motoko_failure"]["attempt"]) == ("CANCELLED", 2)
    assert "motoko_not_before" not in entries


async def test_a_job_without_a_launcher_is_stopped_with_its_children(scripts: Workflow, fifo: Path) -> None:
    run = await left_behind(scripts, fifo, f"sleep 1000 & echo $! > {fifo}; wait")
    (other,) = create_tasks(scripts, n=1)
    cancelling = await cancel(scripts, run)
    assert (cancelling.cancelled, cancelling.ended) == (1, 0)
    entries = entries_of(scripts, run)
    assert entries["state"] == "FAILED"
    assert entries["motoko_failure"]["reason"] == "CANCELLED"
    assert "motoko_handle" not in entries
    # Nothing else was touched, and nobody keeps the study.
    assert entries_of(scripts, other)["state"] == "CREATED"
    assert holder(scripts.mult.launcher_lock) is None


async def test_a_run_that_was_reset_is_cancelled_with_the_job_that_it_still_has(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    script = f"trap 'touch {tmp_path}/end; exit 0' TERM; echo > {fifo}; sleep 1000 & wait"
    run = await left_behind(scripts, fifo, script)
    set_state(scripts, run, "CREATED")
    cancelling = cancellation(scripts, run)
    cancelling.ask()
    assert not cancelling.is_done
    assert entries_of(scripts, run)["motoko_failure"]["reason"] == "CANCELLED"  # no launcher takes it
    assert not (tmp_path / "end").exists()
    cancelling = await cancel(scripts, run)
    assert (cancelling.cancelled, cancelling.ended) == (1, 0)
    assert (tmp_path / "end").exists()
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "CANCELLED")
    assert not {"motoko_handle", CANCEL} & entries.keys()


async def test_the_launcher_that_has_a_job_in_hand_stops_it(scripts: Workflow, fifo: Path) -> None:
    (run,) = create_tasks(scripts, label=f"echo > {fifo}; sleep 1000")
    async with launching(scripts):
        await read_line(fifo)
        (waiting,) = create_tasks(scripts, n=1, label=f"echo > {fifo}; sleep 1000")
        with held(scripts.mult.launcher_lock, "a test", ""):  # as the launcher's own process would
            cancelling = cancellation(scripts, run)
            cancelling.ask()
            entries = (await settled(scripts, run))[0]
            cancelling.look()
        assert entries["motoko_failure"]["reason"] == "CANCELLED"
        assert CANCEL not in entries
        assert (cancelling.is_done, cancelling.cancelled) == (True, 1)
        await read_line(fifo)
        assert entries_of(scripts, waiting)["state"] == "launched"


async def test_a_job_that_has_ended_meanwhile_is_not_called_cancelled(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    run = await left_behind(scripts, fifo, f"echo > {fifo}; read < {fifo}; echo > {tmp_path}/end")
    await soon(asyncio.to_thread(fifo.write_text, "go\n"))
    assert await asyncio.to_thread(wait_until, (tmp_path / "end").exists, TIMEOUT_S)
    cancelling = await cancel(scripts, run)
    entries = entries_of(scripts, run)
    # It may just have had something left to do.
    assert (entries["state"], cancelling.ended) in {("FINISHED", 1), ("FAILED", 0)}
    assert "motoko_handle" not in entries


async def test_a_claimed_run_that_was_never_started_is_cancelled(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts)
    set_state(scripts, run, "TOBELAUNCHED", motoko_handle='{"tag": "motoko-mult-never"}')
    cancelling = await cancel(scripts, run)
    assert cancelling.cancelled == 1
    assert entries_of(scripts, run)["motoko_failure"]["reason"] == "CANCELLED"


async def test_runs_that_are_over_or_gone_count_as_ended(scripts: Workflow) -> None:
    finished, failed = create_tasks(scripts, n=[1, 2])
    set_state(scripts, finished, "FINISHED")
    set_state(scripts, failed, "FAILED", motoko_failure={"reason": "EXIT_CODE", "exit_code": 3})
    cancelling = await cancel(scripts, finished, failed, "mult.987654")
    assert (cancelling.cancelled, cancelling.ended) == (0, 3)
    assert entries_of(scripts, failed)["motoko_failure"] == {"reason": "EXIT_CODE", "exit_code": 3}


async def test_a_run_that_motoko_has_not_started_is_left_alone(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts)
    set_state(scripts, run, "START")
    cancelling = await cancel(scripts, run)
    assert cancelling.strangers == {scripts.mult: [number(run)]}
    assert (cancelling.cancelled, cancelling.ended) == (0, 0)
    assert entries_of(scripts, run)["state"] == "START"


async def test_a_launcher_is_asked_with_the_tag_of_the_execution(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts)
    set_state(scripts, run, "START", motoko_handle='{"tag": "motoko-mult-1"}')
    with held(scripts.mult.launcher_lock, "a test", ""):
        cancelling = cancellation(scripts, run)
        cancelling.ask()
        cancelling.look()
        assert not cancelling.is_done
        assert entries_of(scripts, run)[CANCEL] == "motoko-mult-1"
        # The launcher was stopped, and has handed the run back.
        set_state(scripts, run, "CREATED", motoko_handle=None)
        cancelling.look()
    assert cancelling.cancelled == 1


async def test_who_awaits_a_cancelled_run_is_told_and_it_is_not_retried(scripts: Workflow) -> None:
    told = []

    async def main(workflow: Workflow, **_: object) -> None:
        workflow.add_error_handler(f="retry", max_attempts=5)
        runs = workflow.mult.createTask(n=5, commit=True)
        cancelling = cancellation(workflow, f"mult.{runs[0][0].id}")
        await asyncio.to_thread(cancelling.ask)
        assert cancelling.cancelled == 1
        with pytest.raises(RunFailed, match="CANCELLED") as raised:
            await runs
        told.append(str(raised.value))
        workflow.finished = True

    await orchestrate(scripts, main)
    (text,) = told
    assert "is FAILED (CANCELLED)" in text
    assert "motoko clean" in text
    ((run,),) = [[f"mult.{r.id}" for r, _ in scripts.mult.select("n = 5")]]
    assert entries_of(scripts, run)["motoko_failure"]["attempt"] == 1
