"""Whole workflows on a real SLURM cluster: what goes wrong there, goes wrong for real."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.launch.stopping import stop
from motoko_core.workflow import Workflow
from motoko_plugins.generators.slurm import SlurmGenerator, SlurmOptions
from tests.clusters.reaper import ROOT
from tests.clusters.slurm import SlurmCluster
from tests.conftest import create_tasks, number, set_state
from tests.launching import NAME, entries_of, failure_of, launching, no_other, settled
from tests.slurm.conftest import Executions

#: What a cluster is asked at most this often, in tests.
OPTIONS = {"poll_interval_s": 0.5, "lost_after_s": 5}


@asynccontextmanager
async def launching_on_slurm(workflow: Workflow) -> AsyncIterator[Launcher]:
    """A launcher at work in this process."""
    generator = SlurmGenerator(SlurmOptions(**OPTIONS))
    async with launching(workflow, generator=generator) as launcher:
        yield launcher


async def wait_for_jobs(
    cluster: SlurmCluster, condition: Callable[[list[list[str]]], object], *fields: str
) -> list[list[str]]:
    """Wait for the cluster while the launcher works."""
    return await asyncio.to_thread(cluster.wait_for_jobs, condition, *fields)


def are_running(number: int) -> Callable[[list[list[str]]], bool]:
    return lambda jobs: [state for *_, state in jobs] == ["RUNNING"] * number


@pytest.fixture
def quickstart() -> Iterator[Path]:
    """The example, with `generator: slurm`."""
    directory = Path(tempfile.mkdtemp(prefix="mtk-")).resolve()
    shutil.copytree(ROOT / "docs" / "examples" / "quickstart", directory, dirs_exist_ok=True)
    with (directory / "motoko.yaml").open("a") as file:
        file.write(f"generator: slurm\nslurm_options: {OPTIONS}\n")
    yield directory
    subprocess.run([*MOTOKO, "-C", directory, "kill"], check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)


MOTOKO = [sys.executable, "-m", "motoko_core.cli.main"]


def test_the_quickstart_runs(slurm_cluster: SlurmCluster, quickstart: Path) -> None:
    done = subprocess.run(
        [*MOTOKO, "run", "--run-name", "demo"],
        cwd=quickstart,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17.211860" in done.stdout
    assert "2.426202" in done.stdout
    # (The last one's record may be there before its job is over.)
    slurm_cluster.wait_for_jobs(lambda jobs: {state for *_, state in jobs} == {"COMPLETED"})


async def test_300_runs_are_few_submissions(
    slurm_cluster: SlurmCluster, scripts: Workflow, tmp_path: Path, executions: Executions
) -> None:
    slurm_cluster.wrap("sbatch")
    runs = create_tasks(scripts, x=[float(x) for x in range(300)], label=executions.note)
    async with launching_on_slurm(scripts):
        ends = await settled(scripts, *runs)
    assert [failure_of(entries) for entries in ends if entries["state"] != "FINISHED"] == []
    assert len(slurm_cluster.calls("sbatch")) <= 10
    assert executions.counted() == [1] * 300


async def test_what_slurm_ends_says_why(
    slurm_cluster: SlurmCluster, scripts: Workflow, tmp_path: Path, executions: Executions
) -> None:
    """One after the other would take a minute more."""
    late, cancelled, failed = create_tasks(scripts, x=[1.0, 2.0, 3.0], label="sleep 600")
    for run, node in zip((late, cancelled, failed), ("node1", "node2", "node3"), strict=True):
        set_state(scripts, run, "CREATED", slurm_options=[f"nodelist={node}"])
    async with launching_on_slurm(scripts):
        jobs = await wait_for_jobs(slurm_cluster, are_running(3), "%A", "%N", "%T")
        job_on = {node: job for job, node, _ in jobs}
        slurm_cluster.kill_node("node3")
        slurm_cluster.end_time_limit(job_on["node1"])
        slurm_cluster.run("scancel", job_on["node2"])
        ends = await settled(scripts, cancelled, failed, late, timeout_s=60)  # SLURM takes 30 s
    assert [entries["state"] for entries in ends] == ["FAILED"] * 3
    assert [entries["motoko_failure"]["reason"] for entries in ends] == ["CANCELLED", "NODE_FAIL", "TIMEOUT"]


async def test_a_controller_that_is_away_loses_nothing_and_ends_nothing(
    slurm_cluster: SlurmCluster, scripts: Workflow, tmp_path: Path, executions: Executions
) -> None:
    def create(x: float) -> str:
        work = f"{executions.note}; until [ -e {tmp_path}/{x} ]; do sleep 0.1; done"
        (run,) = create_tasks(scripts, x=x, label=work)
        return run

    before = [create(1.0), create(2.0)]
    async with launching_on_slurm(scripts):
        await wait_for_jobs(slurm_cluster, are_running(2))
        slurm_cluster.stop_controller()
        slurm_cluster.wrap("squeue")
        slurm_cluster.wrap("sbatch")
        # One job ends while nobody can say so, one after that; two runs come in between.
        (tmp_path / "1.0").touch()
        during = [create(3.0), create(4.0)]
        while len(slurm_cluster.calls("squeue")) < 2 or not slurm_cluster.calls("sbatch"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        slurm_cluster.start_controller()
        for x in (2.0, 3.0, 4.0):
            (tmp_path / f"{x}").touch()
        ends = await settled(scripts, *before, *during)
    assert [entries["state"] for entries in ends] == ["FINISHED"] * 4
    assert executions.counted() == [1] * 4


async def test_of_one_jobs_runs_one_is_cancelled_without_a_launcher_and_the_others_are_executed_once(
    slurm_cluster: SlurmCluster, scripts: Workflow, tmp_path: Path, executions: Executions
) -> None:
    work = f"{executions.note}; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    runs = create_tasks(scripts, x=[1.0, 2.0, 3.0], label=work)

    def generator() -> SlurmGenerator:
        return SlurmGenerator(SlurmOptions(**OPTIONS, runs_per_job=3))

    async with launching(scripts, generator=generator(), keep_jobs=True):
        while sum(executions.counted()) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    service = Service(generator=generator(), name=NAME)
    assert await stop(scripts.mult, service, [number(runs[0])], no_other) == 1
    found = [entries_of(scripts, run) for run in runs]
    assert [entries["state"] for entries in found] == ["FAILED", "CREATED", "CREATED"]
    assert found[0]["motoko_failure"]["reason"] == "CANCELLED"
    assert not any("motoko_handle" in entries for entries in found)
    (tmp_path / "go").touch()
    async with launching(scripts, generator=generator()):
        ends = await settled(scripts, *runs[1:])
    assert [entries["state"] for entries in ends] == ["FINISHED", "FINISHED"]
    assert executions.counted() == [1] * 3
    assert len(slurm_cluster.jobs()) == 2


async def test_a_launcher_that_stops_its_jobs_hands_their_runs_back(
    slurm_cluster: SlurmCluster, scripts: Workflow, tmp_path: Path, executions: Executions
) -> None:
    work = f"{executions.note}; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    runs = create_tasks(scripts, x=[1.0, 2.0, 3.0], label=work)
    async with launching_on_slurm(scripts):
        while sum(executions.counted()) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    found = [entries_of(scripts, run) for run in runs]
    assert [entries["state"] for entries in found] == ["CREATED"] * 3
    assert not any("motoko_handle" in entries for entries in found)
    slurm_cluster.wait_for_jobs(lambda jobs: [state for *_, state in jobs] == ["CANCELLED"] * 3)
