"""The SLURM generator on a real cluster: what becomes of runs when nothing goes wrong with the cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import exit_record_path
from motoko_plugins.generators.slurm import SlurmGenerator, SlurmOptions
from tests.clusters.slurm import SlurmCluster
from tests.plugins.scheduling import Runs, following, patient, runs, slurm

__all__ = ["patient", "runs"]

pytestmark = pytest.mark.usefixtures("patient")


async def test_runs_end_as_their_scripts_do(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    slurm_cluster.wrap("sbatch")
    batch = [
        runs("echo out; echo err >&2"),
        runs("exit 3"),
        runs("kill -9 $$"),
        runs("bash -c 'kill -9 $$'\nexit 5"),
    ]
    generator = slurm()
    async with following(generator) as ends:
        intents = generator.intents(batch)
        answers = await generator.submit(batch)
        found = await ends(*batch)
    assert [(end.exit_code, end.reason) for end in found] == [
        (0, None),
        (3, None),
        (-9, "SIGNAL"),
        (5, None),
    ]
    assert len(slurm_cluster.calls("sbatch")) == 1
    for number, (intent, answer) in enumerate(zip(intents, answers, strict=True)):
        assert answer.error is None
        assert intent.items() <= (answer.handle or {}).items()
        assert intent["index"] == number
        assert (answer.handle or {})["job"].endswith(f"_{number}")
    assert batch[0].stdout.read_text() == "out\n"
    assert batch[0].stderr.read_text() == "err\n"
    assert generator.launched_state == "SLURM submit"


async def test_a_script_finds_itself_in_its_run_directory_with_motokos_python(
    slurm_cluster: SlurmCluster, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_THE_LAUNCHER", "a b")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")  # the launcher may run in a job itself
    monkeypatch.setenv("SBATCH_JOB_NAME", "mine")
    lines = ("$PWD", "$SLURM_SUBMIT_DIR", "$FROM_THE_LAUNCHER", "$SLURM_NTASKS", "$SLURM_JOB_NAME")
    task = runs("\n".join(f'echo "{line}"' for line in lines) + "\ncommand -v python", nproc=3)
    generator = slurm()
    async with following(generator) as ends:
        (answer,) = await generator.submit([task])
        (end,) = await ends(task)
    assert end.exit_code == 0
    assert answer.handle is not None
    assert task.stdout.read_text().splitlines() == [
        *(str(task.directory), str(task.directory), "a b", "3", answer.handle["name"]),
        str(Path(sys.executable).parent / "python"),
    ]
    assert (
        exit_record_path(task.directory, task.tag)
        .read_text()
        .startswith(f"started {answer.handle['job']}_0\n")
    )


async def test_names_stay_inert(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    names = [
        "a b",
        "it's",
        'a "b"',
        "line\n#SBATCH --array=0-9\n",
        "$(touch executed)`touch executed`",
        "crlf\r\nend",
        "back\\slash\\n",
        "-n é ü",
        "\udcff\udcfe",
    ]
    batch = [
        runs("pwd > where; echo ok", name=name, script="sc ript's.sh", run_name=name.replace("/", "_"))
        for name in names
    ]
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit(batch)
        found = await ends(*batch)
    assert [end.exit_code for end in found] == [0] * len(batch)
    for task in batch:
        assert task.stdout.read_text() == "ok\n"
        assert (task.directory / "where").is_file()
    assert not list(runs.root.rglob("executed"))
    assert len(slurm_cluster.jobs()) == len(batch)


async def test_options_of_the_workflow_the_task_manager_and_the_run(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    hold = "until [ -e end ]; do sleep 0.1; done"
    settings = SlurmOptions(options=["time=20", 'comment="of it"'])
    batch = [
        runs(hold),
        runs(hold, settings=settings),
        runs(hold, settings=settings, options={"slurm_options": ["--time 30", "nodes=2"]}),
        runs(hold, settings=settings, options={"slurm_options": ["nodes=many"]}),
        runs(hold, options={"slurm_options": ["array=0-3"]}),
    ]
    generator = slurm(options=["time=10", "--comment=mine", "-p main"])
    async with following(generator) as ends:
        *good, refused, wrong = await generator.submit(batch)
        ids = [(answer.handle or {})["job"] for answer in good]
        found = {job[0]: job[1:] for job in slurm_cluster.jobs("%A", "%l", "%k", "%D")}
        for task in batch:
            (task.directory / "end").touch()
        assert [end.exit_code for end in await ends(*batch[:3])] == [0, 0, 0]
    assert found[ids[0]] == ["10:00", "mine", "1"]
    assert found[ids[1]] == ["20:00", "of it", "1"]
    assert found[ids[2]] == ["30:00", "of it", "2"]
    assert refused.handle is None
    assert refused.error is not None
    assert "cannot submit add.4" in refused.error
    assert "not a valid node count" in refused.error
    assert wrong.error is not None
    assert "slurm_options of add.5: 'array=0-3' cannot be given" in wrong.error


async def test_200_runs_are_one_submission_and_few_questions(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    for program in ("sbatch", "squeue", "scontrol"):
        slurm_cluster.wrap(program)
    batch = [runs("echo x >> ../executed") for _ in range(200)]
    generator = slurm(poll_interval_s=1.0)
    async with following(generator) as ends:
        generator.intents(batch)
        await generator.submit(batch)
        assert generator.room() is None
        found = await ends(*batch)
    assert {end.exit_code for end in found} == {0}
    assert len((runs.root / "executed").read_text()) == 400
    assert len(slurm_cluster.calls("sbatch")) == 1
    assert len(slurm_cluster.calls("scontrol")) == 1
    assert len(slurm_cluster.calls("squeue")) <= 60


async def test_arrays_are_as_large_as_the_cluster_allows_and_jobs_as_many_as_the_user_does(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    slurm_cluster.wrap("sbatch", before=f"squeue -h -r -t PD,R,CG | wc -l >> {runs.root}/before")
    slurm_cluster.wrap("scontrol", before="echo 'MaxArraySize            = 3'; exit")
    batch = [runs("true") for _ in range(8)]
    generator = slurm(max_jobs=4)
    async with following(generator) as ends:
        assert generator.room() == 4
        intents = generator.intents(batch)
        answers = await generator.submit(batch)
        assert [answer.error for answer in answers] == [None] * 8
        assert {end.exit_code for end in await ends(*batch)} == {0}
        assert generator.room() == 4
    assert [intent["index"] for intent in intents] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert len({intent["name"] for intent in intents}) == 3
    arguments = [call.rpartition("--array=")[2] for call in slurm_cluster.calls("sbatch")]
    assert arguments[:2] == ["0-2", "0"] or arguments[:1] == ["0-2"]
    assert len(arguments) >= 3


async def test_one_job_executes_several_runs_which_end_one_by_one(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    slurm_cluster.wrap("sbatch")
    batch = [runs(f"echo $SLURM_JOB_ID >> ../jobs; exit {number % 3}") for number in range(6)]
    last = runs("until [ -e end ]; do sleep 0.1; done")
    generator = slurm(runs_per_job=4, max_jobs=5)
    async with following(generator) as ends:
        assert generator.room() == 20
        answers = await generator.submit([*batch, last])
        found = await ends(*batch)
        assert generator.room() == 16
        (last.directory / "end").touch()
        assert [end.exit_code for end in await ends(last)] == [0]
    assert [end.exit_code for end in found] == [0, 1, 2, 0, 1, 2]
    assert len(slurm_cluster.calls("sbatch")) == 1
    assert len(slurm_cluster.jobs()) == 2
    assert len(set((runs.root / "jobs").read_text().split())) == 2
    assert [(answer.handle or {})["place"] for answer in answers] == [0, 1, 2, 3, 0, 1, 2]


async def test_a_program_that_is_missing_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"'sbatch'.*not on the PATH") as raised:
        SlurmGenerator()
    assert "generator: bash" in str(raised.value)
