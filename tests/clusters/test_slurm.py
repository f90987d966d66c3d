"""The cluster of the other tests does what they rely on."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from motoko_core.daemons import is_gone, wait_until
from tests.clusters import reaper
from tests.clusters.reaper import ROOT
from tests.clusters.slurm import NODES, SlurmCluster


def submit(cluster: SlurmCluster, script: str, *arguments: str) -> str:
    return cluster.run("sbatch", "--parsable", "-o", "/dev/null", *arguments, "--wrap", script)


def state_of(cluster: SlurmCluster, job: str) -> str:
    return {number: state for number, _, state in cluster.jobs()}.get(job, "")


def test_an_array_is_executed_on_all_nodes(slurm_cluster: SlurmCluster) -> None:
    submit(slurm_cluster, "sleep 600", "--array=0-11")
    jobs = slurm_cluster.wait_for_jobs(lambda jobs: [job[0] for job in jobs] == ["RUNNING"] * 12, "%T", "%N")
    assert {node for _, node in jobs} == set(NODES)


def test_calls_of_a_program_are_counted_and_can_go_wrong(slurm_cluster: SlurmCluster) -> None:
    slurm_cluster.wrap("sbatch", after="exit 7")
    done = subprocess.run(
        ["sbatch", "-o", "/dev/null", "--wrap", "exit\n0"], check=False, capture_output=True
    )
    assert done.returncode == 7
    assert slurm_cluster.calls("sbatch") == ["-o /dev/null --wrap exit 0"]
    assert len(slurm_cluster.jobs()) == 1
    slurm_cluster.wrap("sbatch", before="exit 8")
    assert subprocess.run(["sbatch", "--wrap", "true"], check=False).returncode == 8
    assert len(slurm_cluster.jobs()) == 1


def test_jobs_go_on_without_a_controller(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    job = submit(slurm_cluster, f"until [ -e {tmp_path}/end ]; do sleep 0.1; done; touch {tmp_path}/ended")
    slurm_cluster.wait_for_jobs(lambda _: state_of(slurm_cluster, job) == "RUNNING")
    slurm_cluster.stop_controller()
    assert "DOWN" in slurm_cluster.run("scontrol", "ping", check=False)
    slurm_cluster.start_controller()
    (tmp_path / "end").touch()
    slurm_cluster.wait_for_jobs(lambda _: state_of(slurm_cluster, job) == "COMPLETED")
    assert (tmp_path / "ended").exists()


def test_a_node_dies_with_its_jobs(slurm_cluster: SlurmCluster) -> None:
    job = submit(slurm_cluster, "exec env -i sleep 600", "-w", "node2", "--no-requeue")
    slurm_cluster.wait_for_jobs(lambda _: state_of(slurm_cluster, job) == "RUNNING")
    slurm_cluster.kill_node("node2")
    assert not reaper.processes_of(slurm_cluster.directory, "node2")
    assert reaper.processes_of(slurm_cluster.directory, "node1")
    slurm_cluster.start_node("node2")


def test_the_controller_forgets_jobs(slurm_cluster: SlurmCluster) -> None:
    job = submit(slurm_cluster, "true")
    slurm_cluster.wait_for_jobs(lambda _: state_of(slurm_cluster, job) == "COMPLETED")
    slurm_cluster.forget_jobs()
    assert slurm_cluster.jobs() == []
    later = submit(slurm_cluster, "true")
    assert int(later) == int(job) + 1  # the node would not execute another one with the id that it knows


def names_of(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


SCRIPT = """
import sys
from tests.clusters.slurm import SlurmCluster
cluster = SlurmCluster()
print(cluster.directory, flush=True)
cluster.start()
cluster.run("sbatch", "--wrap", "exec env -i sleep 600")
cluster.wait_for_jobs(lambda jobs: jobs[0][2] == "RUNNING")
print("up", flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_cluster_whose_test_process_was_killed(slurm_cluster: SlurmCluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        assert process.stdout.readline() == "up\n"
        names = {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"}
        assert wait_until(lambda: names <= names_of(reaper.processes_of(directory)), 60)
        found = reaper.processes_of(directory)
        process.kill()
    assert wait_until(lambda: not directory.exists(), 60)
    assert all(map(is_gone, found))
    assert not directory.exists()
