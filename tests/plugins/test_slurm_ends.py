"""How SLURM itself ends jobs, and starts them again."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs
import pytest

from motoko_core.daemons import wait_until
from motoko_core.interfaces import LaunchTask, Submitted
from tests.clusters.slurm import SlurmCluster
from tests.plugins.scheduling import TIMEOUT_S, Runs, following, patient, runs, slurm, until

__all__ = ["patient", "runs"]

pytestmark = pytest.mark.usefixtures("patient")

WAITS = "echo x >> begun\nuntil [ -e end ]; do sleep 0.1; done\n"
WARNED = f"trap 'touch warned' USR1\n{WAITS}"
#: Says when it is warned, and goes on.
AWARE = """\
import pathlib, signal, time
signal.signal(signal.SIGUSR1, lambda number, frame: pathlib.Path("warned").touch())
pathlib.Path("begun").write_text("x\\n")
while not pathlib.Path("end").exists():
    time.sleep(0.05)
"""
TIDIES_UP = f"trap 'touch saved; exit 7' TERM\n{WAITS}"


def has_begun_again(cluster: SlurmCluster, task: LaunchTask, job: str, start: str = "now") -> bool:
    """Whether a run was begun twice. A job that is started again would wait for two minutes."""
    if (task.directory / "begun").read_text() == "x\nx\n":
        return True
    cluster.run("scontrol", "update", f"JobId={job}", f"StartTime={start}", check=False)
    return False


async def test_the_time_limit_is_announced_and_ends_runs(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    aware, unaware, tidies_up = runs("exec python aware.py"), runs(WAITS), runs(TIDIES_UP)
    (aware.directory / "aware.py").write_text(AWARE)
    batch = [aware, unaware, tidies_up]
    generator = slurm(options=["time=1"])
    async with following(generator) as ends:
        answers = await generator.submit(batch)
        await until(lambda: all((task.directory / "begun").exists() for task in batch))
        # Less than 60 s are left: the warning comes when SLURM looks at its clock, which it does every 30 s.
        await until((aware.directory / "warned").exists)
        (aware.directory / "end").touch()
        assert [(end.exit_code, end.reason) for end in await ends(aware)] == [(0, None)]
        for answer in answers[1:]:
            slurm_cluster.end_time_limit((answer.handle or {})["job"])
        found = await ends(unaware, tidies_up)
    assert [(end.exit_code, end.reason) for end in found] == [(-15, "TIMEOUT"), (7, "TIMEOUT")]
    assert "TIMEOUT" in found[0].message
    assert (tidies_up.directory / "saved").exists()


async def test_what_the_scheduler_cancels_is_cancelled(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    running = runs(WAITS)
    pending = runs("touch executed", options={"slurm_options": ["hold"]})
    generator = slurm()
    async with following(generator) as ends:
        answers = await generator.submit([running, pending])
        await until((running.directory / "begun").exists)
        slurm_cluster.run("scancel", *((answer.handle or {})["job"] for answer in answers))
        found = await ends(running, pending)
    assert [(end.exit_code, end.reason) for end in found] == [(-15, "CANCELLED"), (None, "CANCELLED")]
    assert "had not begun" in found[1].message


async def test_a_waiting_element_of_an_array_that_somebody_cancels_is_cancelled(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """SLURM keeps no trace of it: neither `squeue -t all` nor anything else knows it."""
    batch = [runs("touch executed", options={"slurm_options": ["hold"]}) for _ in range(3)]
    generator = slurm(lost_after_s=1)
    async with following(generator) as ends:
        await generator.submit(batch)
        slurm_cluster.wrap("squeue")
        await until(lambda: len(slurm_cluster.calls("squeue")) > 1)  # the first answer has been read
        ((job, *_), *_) = slurm_cluster.jobs()
        slurm_cluster.run("scancel", f"{job}_1")
        (end,) = await ends(batch[1])
        assert len(slurm_cluster.jobs()) == 2
    assert (end.exit_code, end.reason) == (None, "CANCELLED")
    assert f"job {job}_1" in end.message


async def test_a_job_that_slurm_starts_again_is_followed_to_its_end(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    batch = [runs("true"), runs(WAITS), runs(WAITS)]
    generator = slurm(runs_per_job=2, requeue=True)
    async with following(generator) as ends:
        answers = await generator.submit(batch)
        await until(lambda: all((task.directory / "begun").exists() for task in batch[1:]))
        job = (answers[1].handle or {})["job"]
        slurm_cluster.run("scontrol", "requeue", job)
        slurm_cluster.wait_for_jobs(lambda found: "PENDING" in [state for *_, state in found])
        # Within the same second, the node takes it for the one that was revoked: it fails.
        start = f"{datetime.now() + timedelta(seconds=2):%Y-%m-%dT%H:%M:%S}"
        await until(lambda: has_begun_again(slurm_cluster, batch[1], job, start))
        for task in batch:
            (task.directory / "end").touch()
        assert [end.exit_code for end in await ends(*batch)] == [0, 0, 0]
    assert (batch[2].directory / "begun").read_text() == "x\n"


async def test_a_job_whose_runs_end_was_told_does_not_execute_it_when_it_is_started_again(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    task = runs(WAITS)
    generator = slurm(requeue=True)
    async with following(generator) as ends:
        (answer,) = await generator.submit([task])
        await until((task.directory / "begun").exists)
        await generator.cancel([task.tag])
        assert [end.reason for end in await ends(task)] == ["CANCELLED"]
    slurm_cluster.wait_for_jobs(lambda found: [job[2] for job in found] == ["CANCELLED"])
    job = (answer.handle or {})["job"]
    slurm_cluster.run("scontrol", "requeue", job)
    slurm_cluster.wait_for_jobs(lambda found: [job[2] for job in found] == ["PENDING"])
    start = f"{datetime.now() + timedelta(seconds=2):%Y-%m-%dT%H:%M:%S}"
    slurm_cluster.run("scontrol", "update", f"JobId={job}", f"StartTime={start}")
    slurm_cluster.wait_for_jobs(lambda found: [job[2] for job in found] == ["FAILED"])
    assert (task.directory / "begun").read_text() == "x\n"


async def test_runs_on_a_node_that_fails_end_with_it_or_begin_again(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    again = runs(WAITS, options={"slurm_options": ["requeue"]})
    generator = slurm()
    async with following(generator) as ends:
        (answer,) = await generator.submit([again])
        await until((again.directory / "begun").exists)
        ((node,),) = slurm_cluster.jobs("%N")
        batch = [runs(WAITS, options={"slurm_options": [f"nodelist={node}"]}) for _ in range(2)]
        await generator.submit(batch)
        await until(lambda: all((task.directory / "begun").exists() for task in batch))
        slurm_cluster.kill_node(node)
        found = await ends(*batch)
        job = (answer.handle or {})["job"]
        await until(lambda: has_begun_again(slurm_cluster, again, job))
        (again.directory / "end").touch()
        assert [end.exit_code for end in await ends(again)] == [0]
    assert [(end.exit_code, end.reason) for end in found] == [(None, "NODE_FAIL")] * 2
    assert "NODE_FAIL" in found[0].message


async def test_runs_that_a_job_leaves_behind_are_executed_by_another(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    batch = [runs(WARNED), runs("echo x >> begun"), runs("echo x >> begun")]
    first, *others = batch
    generator = slurm(runs_per_job=3)
    async with following(generator) as ends:
        (answer, *_) = await generator.submit(batch)
        await until((first.directory / "begun").exists)
        leave_the_rest(slurm_cluster, first, answer)
        assert [(end.exit_code, end.again) for end in await ends(*batch)] == [
            (0, False),
            (None, True),
            (None, True),
        ]
        # The launcher launches them again.
        others = [attrs.evolve(task, tag=f"{task.tag}-2") for task in others]
        await generator.submit(others)
        assert [end.exit_code for end in await ends(*others)] == [0, 0]
    assert [task.directory.joinpath("begun").read_text() for task in others] == ["x\n", "x\n"]
    assert len(slurm_cluster.jobs()) == 2


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_runs_that_a_job_has_left_behind_while_no_launcher_was_there_are_launched_again(
    slurm_cluster: SlurmCluster, runs: Runs, is_forgotten: bool
) -> None:
    batch = [runs(WARNED), runs("echo x >> begun"), runs("echo x >> begun")]
    generator, later = slurm(runs_per_job=3), slurm(runs_per_job=3, lost_after_s=1)
    async with following(generator):
        answers = await generator.submit(batch)
        await until((batch[0].directory / "begun").exists)
    leave_the_rest(slurm_cluster, batch[0], answers[0])
    slurm_cluster.wait_for_jobs(lambda found: [job[2] for job in found] == ["FAILED"])
    if is_forgotten:
        slurm_cluster.forget_jobs()
    async with following(later) as ends:
        # The end of the first was written before the launcher ended.
        others = list(zip(batch, [answer.handle for answer in answers], strict=True))[1:]
        assert await later.adopt(others) == {task.tag for task in batch[1:]}
        assert [(end.exit_code, end.again) for end in await ends(*batch[1:])] == [(None, True)] * 2
    assert not (batch[1].directory / "begun").exists()


def leave_the_rest(cluster: SlurmCluster, first: LaunchTask, answer: Submitted) -> None:
    """Have a job end after its first run, as before the time limit."""
    cluster.run("scancel", "--batch", "--signal=USR1", (answer.handle or {})["job"])
    assert wait_until((first.directory / "warned").exists, TIMEOUT_S)
    (first.directory / "end").touch()
