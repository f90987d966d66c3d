"""Cancelling on a real cluster."""

from __future__ import annotations

import attrs

from tests.clusters.slurm import SlurmCluster
from tests.plugins.scheduling import Runs, following, runs, slurm, until

__all__ = ["runs"]

#: Writes down that it began, and waits for the file `end`; `sleep` is a child of its own.
WAITS = "echo $$ > begun\nuntil [ -e end ]; do sleep 0.1; done\n"


async def test_runs_are_cancelled_and_others_are_not(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    slurm_cluster.wrap("scancel")
    running = [runs(WAITS) for _ in range(3)]
    stays = runs(WAITS)
    held = runs("touch executed", options={"slurm_options": ["hold"]})
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit([*running, stays, held])
        await until(lambda: all((task.directory / "begun").exists() for task in [*running, stays]))
        await generator.cancel([*(task.tag for task in running), held.tag, "unknown"], grace_s=30)
        found = await ends(*running, held)
        assert {end.reason for end in found} == {"CANCELLED"}
        assert len(slurm_cluster.calls("scancel")) == 1
        await generator.cancel([running[0].tag])
        (stays.directory / "end").touch()
        assert [end.reason for end in await ends(stays)] == [None]
    under_way = {"RUNNING", "PENDING", "COMPLETING"}
    jobs = slurm_cluster.wait_for_jobs(lambda jobs: all(state not in under_way for _, _, state in jobs))
    assert sorted(state for _, _, state in jobs) == ["CANCELLED"] * 4 + ["COMPLETED"]


async def test_a_run_that_ended_before_is_not_cancelled(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    task = runs(WAITS)
    first, second = slurm(poll_interval_s=60), slurm()
    async with following(first):
        (answer,) = await first.submit([task])
        (task.directory / "end").touch()
        slurm_cluster.wait_for_jobs(lambda jobs: jobs and jobs[0][2] == "COMPLETED")
    async with following(second) as ends:
        assert await second.adopt([(task, answer.handle)]) == {task.tag}
        await second.cancel([task.tag])
        (end,) = await ends(task)
    assert (end.exit_code, end.reason) == (0, None)


async def test_what_is_cancelled_before_it_is_submitted_is_never_executed(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    blocker, waiting = runs(WAITS), runs("touch executed")
    generator = slurm(max_jobs=1)
    async with following(generator) as ends:
        await generator.submit([blocker, waiting])
        assert generator.room() == 0
        await generator.cancel([waiting.tag])
        assert [end.reason for end in await ends(waiting)] == ["CANCELLED"]
        (blocker.directory / "end").touch()
        assert [end.exit_code for end in await ends(blocker)] == [0]
        assert generator.room() == 1
    assert len(slurm_cluster.jobs()) == 1


async def test_a_submission_that_hangs_is_cancelled_when_it_shows(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    slurm_cluster.wrap("sbatch", before=f"until [ -e {runs.root}/go ]; do sleep 0.1; done")
    task = runs("touch executed")
    generator = slurm()
    async with following(generator) as ends:
        (answer,) = await generator.submit([task])
        assert answer.error is None
        assert "job" not in (answer.handle or {})
        await generator.cancel([task.tag])
        assert [end.reason for end in await ends(task)] == ["CANCELLED"]
        (runs.root / "go").touch()
        slurm_cluster.wait_for_jobs(lambda jobs: jobs and jobs[0][2] not in ("PENDING", "RUNNING"))
        assert not (task.directory / "executed").exists()
    slurm_cluster.wrap("sbatch")


async def test_of_one_jobs_runs_some_are_cancelled_and_the_others_executed_once(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    first, skipped, last = runs(WAITS), runs("touch executed"), runs("echo x >> executed")
    generator = slurm(runs_per_job=3)
    async with following(generator) as ends:
        await generator.submit([first, skipped, last])
        await until((first.directory / "begun").exists)
        await generator.cancel([skipped.tag])
        assert [end.reason for end in await ends(skipped)] == ["CANCELLED"]
        await generator.cancel([first.tag], grace_s=30)
        assert [end.reason for end in await ends(first)] == ["CANCELLED"]
        # The launcher launches it again.
        assert [end.again for end in await ends(first, skipped, last)] == [False, False, True]
        assert not (last.directory / "executed").exists()
        last = attrs.evolve(last, tag=f"{last.tag}-2")
        await generator.submit([last])
        assert [end.exit_code for end in await ends(last)] == [0]
    assert not (skipped.directory / "executed").exists()
    assert (last.directory / "executed").read_text() == "x\n"
    assert len(slurm_cluster.jobs()) == 2
