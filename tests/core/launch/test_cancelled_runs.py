"""Runs whose entry ``motoko_cancel`` says that they are to be stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from motoko_core.interfaces import LaunchTask, Submitted
from motoko_core.study.feed import feed_of
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import create_tasks, set_state
from tests.launching import entries_of, failure_of, launching, read_line, release, settled

CANCELLED = {"reason": "CANCELLED", "attempt": 1, "stderr": ""}


def mark(workflow: Workflow, run: str) -> None:
    set_state(workflow, run, "launched", motoko_cancel=entries_of(workflow, run)["motoko_handle"]["tag"])


async def test_a_run_that_is_marked_is_stopped_and_the_others_go_on(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    async with launching(scripts, slots=2):
        (doomed,) = create_tasks(scripts, label=f"echo > {fifo}; sleep 1000; touch {tmp_path}/end")
        await read_line(fifo)
        (other,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        mark(scripts, doomed)
        (entries,) = await settled(scripts, doomed)
        await release(fifo)
        (fine,) = await settled(scripts, other)
    assert entries["state"] == "FAILED"
    assert failure_of(entries) == {**CANCELLED, "exit_code": -15}
    assert "motoko_cancel" not in entries
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
            mark(scripts, waiting)
            (entries,) = await settled(scripts, waiting)
            assert entries["motoko_failure"]["reason"] == "CANCELLED"
        await release(fifo)
        await settled(scripts, held)


async def test_a_marked_run_that_never_started_is_not_launched_again(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    # As a launcher leaves it that dies before it submits.
    set_state(scripts, run, "TOBELAUNCHED", motoko_handle='{"tag": "motoko-x"}', motoko_cancel="motoko-x")
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["motoko_failure"]) == ("FAILED", {**CANCELLED, "exit_code": None})


async def test_a_mark_that_means_another_execution_does_nothing(scripts: Workflow, fifo: Path) -> None:
    async with launching(scripts):
        (run,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        set_state(scripts, run, "launched", motoko_cancel="motoko-another")
        (other,) = create_tasks(scripts, study="add", label="true")
        await settled(scripts, other)
        await release(fifo)
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
    assert "motoko_cancel" not in entries


async def test_a_mark_of_an_earlier_execution_is_forgotten(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "CREATED", motoko_cancel="long ago")
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"


async def test_a_run_that_is_marked_before_its_generator_has_got_it_is_cancelled(
    scripts: Workflow, fifo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = create_tasks(scripts, label=f"read < {fifo}; touch {tmp_path}/executed")
    submit = BashGenerator.submit

    async def marked_meanwhile(self: BashGenerator, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        set_state(scripts, run, "launched", motoko_cancel=entries_of(scripts, run)["motoko_handle"]["tag"])
        with feed_of(scripts.mult.database) as feed:
            await feed.current()
        return await submit(self, batch)

    monkeypatch.setattr(BashGenerator, "submit", marked_meanwhile)
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "CANCELLED")
    assert "motoko_cancel" not in entries
    assert not (tmp_path / "executed").exists()
