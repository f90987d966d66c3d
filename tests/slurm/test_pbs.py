"""The PBS generator with the qsub, qstat and qdel that come with SLURM, on a real cluster."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from motoko_core.launch.launcher import Launcher
from motoko_core.workflow import Workflow
from motoko_plugins.generators import _scheduler_submit
from motoko_plugins.generators.pbs import PbsGenerator, PbsOptions
from tests.clusters.skipping import require
from tests.clusters.slurm import PATH, SlurmCluster
from tests.conftest import create_tasks, set_state
from tests.launching import entries_of, fifo, launching, read_line, release, settled, until
from tests.slurm.conftest import Executions

__all__ = ["fifo"]


@pytest.fixture
def pbs(slurm_cluster: SlurmCluster) -> SlurmCluster:
    require("PBS on SLURM", "qsub", "qstat", "qdel", path=PATH)
    return slurm_cluster


@asynccontextmanager
async def launching_on_pbs(workflow: Workflow, **options: Any) -> AsyncIterator[Launcher]:
    """A launcher at work in this process, whose jobs go on after it."""
    generator = PbsGenerator(PbsOptions(poll_interval_s=0.3, lost_after_s=3.0, **options))
    async with launching(workflow, generator=generator, keep_jobs=True) as launcher:
        yield launcher


async def test_runs_are_jobs_with_their_directives(pbs: SlurmCluster, scripts: Workflow) -> None:
    (good,) = create_tasks(
        scripts, x=1.0, label="echo out; pwd; echo err >&2; squeue -h -o '%l %D %P' -j $SLURM_JOB_ID"
    )
    (bad,) = create_tasks(scripts, x=2.0, label="echo so >&2; exit 3")
    set_state(scripts, good, "CREATED", pbs_options=["-l walltime=0:07:00"], nproc=2)
    async with launching_on_pbs(scripts, options=["-q main", "-l walltime=0:30:00"]):
        finished, failed = await settled(scripts, good, bad)
    assert (finished["state"], failed["state"]) == ("FINISHED", "FAILED")
    directory = Path(finished["run_path"])
    output, errors = (
        (directory / f"{finished['run_name']}.{letter}{finished['id']}").read_text().splitlines()
        for letter in "oe"
    )
    assert output == ["out", str(directory), "7:00 2 main"]
    assert errors == ["err"]
    assert (failed["motoko_failure"]["reason"], failed["motoko_failure"]["exit_code"]) == ("EXIT_CODE", 3)
    assert failed["motoko_failure"]["stderr"] == "so\n"


async def test_a_queue_that_does_not_exist_fails_the_run_with_the_schedulers_words(
    pbs: SlurmCluster, scripts: Workflow
) -> None:
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "CREATED", pbs_options=["-q nowhere"])
    async with launching_on_pbs(scripts):
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FAILED"
    assert entries["motoko_failure"]["reason"] == "SUBMIT"
    assert "invalid partition specified: nowhere" in entries["motoko_failure"]["stderr"]


@pytest.mark.parametrize(
    "end",
    [
        'echo "qsub: Failed to recv data from background qsub" >&2; exit 1',
        "echo; exit 0",
        "exit 9",
    ],
    ids=["failure", "no id", "no word"],
)
async def test_a_job_whose_submission_had_no_clear_answer_is_found_by_its_name(
    pbs: SlurmCluster, scripts: Workflow, executions: Executions, end: str
) -> None:
    pbs.wrap("qsub", before=f'"$real" "$@" > /dev/null; {end}')
    runs = create_tasks(scripts, x=[1.0, 2.0], label=executions.note)
    async with launching_on_pbs(scripts):
        assert [entries["state"] for entries in await settled(scripts, *runs)] == ["FINISHED"] * 2
    assert executions.counted() == [1, 1]


async def test_a_full_disk_for_temporary_files_is_waited_for(
    pbs: SlurmCluster, scripts: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    script_file = _scheduler_submit.script_file

    def full_at_first(text: bytes) -> Any:
        calls.append(text)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return script_file(text)

    monkeypatch.setattr(_scheduler_submit, "script_file", full_at_first)
    (run,) = create_tasks(scripts, label="true")
    async with launching_on_pbs(scripts):
        assert [entries["state"] for entries in await settled(scripts, run)] == ["FINISHED"]
    assert len(calls) == 2


async def test_several_runs_go_into_one_job(
    pbs: SlurmCluster, scripts: Workflow, executions: Executions
) -> None:
    pbs.wrap("qsub")
    runs = create_tasks(scripts, x=[float(x) for x in range(12)], label=executions.note)
    async with launching_on_pbs(scripts, runs_per_job=5):
        assert {entries["state"] for entries in await settled(scripts, *runs)} == {"FINISHED"}
    assert executions.counted() == [1] * 12
    assert len(pbs.calls("qsub")) == 3


async def test_a_run_is_cancelled_with_its_job(pbs: SlurmCluster, scripts: Workflow, fifo: Path) -> None:
    (run,) = create_tasks(scripts, label=f"echo here > {fifo}; sleep 600")
    async with launching_on_pbs(scripts):
        assert await read_line(fifo) == "here\n"
        tag = entries_of(scripts, run)["motoko_handle"]["tag"]
        set_state(scripts, run, "PBS submit", motoko_cancel=tag)
        (entries,) = await settled(scripts, run)
    assert entries["motoko_failure"]["reason"] == "CANCELLED"
    pbs.wait_for_jobs(lambda jobs: [state for *_, state in jobs] == ["CANCELLED"])


async def test_jobs_are_followed_by_the_next_launcher(
    pbs: SlurmCluster, scripts: Workflow, executions: Executions, fifo: Path
) -> None:
    label = f"{executions.note}; echo here > {fifo}; read < {fifo}"
    (run,) = create_tasks(scripts, label=label)
    async with launching_on_pbs(scripts):
        await read_line(fifo)
        await until(scripts, run, lambda entries: entries.get("motoko_handle"))
    async with launching_on_pbs(scripts):
        await release(fifo)
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
    assert executions.counted() == [1]


async def test_a_job_that_vanished_is_lost_and_not_executed_again(
    pbs: SlurmCluster, scripts: Workflow, executions: Executions, fifo: Path
) -> None:
    # It takes itself out of the job: no shell of Motoko's writes down how it ended.
    label = f"{executions.note}; echo here > {fifo}; kill -9 $PPID; sleep 600"
    (run,) = create_tasks(scripts, label=label)
    async with launching_on_pbs(scripts):
        await read_line(fifo)
        pbs.forget_jobs()
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "LOST")
    assert executions.counted() == [1]
