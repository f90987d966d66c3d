"""BlackDynamite's coats as generators, with programs that stand for the scheduler's."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import JobGenerator, LaunchTask
from motoko_core.launch.workspace import exec_script
from motoko_plugins.generators.blackdynamite import (
    SUBMITTED_FILE,
    CoatGenerator,
    CoatOptions,
    motoko_generators,
)

GENERATORS = motoko_generators()

SLURM_SCRIPT = """\
#!/bin/bash

#SBATCH --job-name=7_wf
#SBATCH --signal=B:TERM@60
#SBATCH --partition=debug
#SBATCH --time=0:05:00
#SBATCH --chdir={directory}

module purge
module load gcc


export BLACKDYNAMITE_HOST=zeo:///somewhere/add
export BLACKDYNAMITE_SCHEMA=jane_add
export BLACKDYNAMITE_STUDY=jane_add
export BLACKDYNAMITE_RUN_ID=7
export BLACKDYNAMITE_USER={user}

on_kill()
{{
canYouDigIt runs update --truerun "state=SLURM killed"
exit 0
}}

on_stop()
{{
canYouDigIt runs update --truerun "state=SLURM stopped"
exit 0
}}

# Execute function on_die() receiving TERM signal
#
trap on_stop SIGUSR1
trap on_stop SIGTERM
trap on_kill SIGUSR2
trap on_kill SIGKILL
#!/bin/bash
export BLACKDYNAMITE_HOST=zeo:///somewhere/add
export BLACKDYNAMITE_STUDY=jane_add
export BLACKDYNAMITE_SCHEMA=jane_add
export BLACKDYNAMITE_RUN_ID=7
export BLACKDYNAMITE_USER=jane
touch executed


if [ $? != 0 ]; then
    canYouDigIt runs update --truerun "state=FAILED"
fi
"""


def program(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/bash\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the PATH with a scheduler's programs, which write down how they are called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    called = f'echo "$(basename $0) $* in $PWD" >> {tmp_path}/calls'
    program(directory, "sbatch", f"{called}; bash $1 &> output; echo 3 nodes; echo Submitted batch job 12")
    program(directory, "qsub", f"{called}; bash $1 &> output; echo 12.server")
    program(directory, "scancel", called)
    program(directory, "qdel", f"{called}; exit 1")
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


@pytest.fixture
def task(tmp_path: Path) -> LaunchTask:
    directory = tmp_path / "run-7"
    directory.mkdir()
    script = exec_script(
        "touch executed\n", host="zeo:///somewhere/add", study="jane_add", run_id=7, user="jane"
    )
    (directory / "launch.sh").write_text(script)
    return LaunchTask(
        tag="t-7", task="add.7", run_id=7, run_name="wf", directory=directory, script="launch.sh", nproc=16
    )


def make(name: str, **options: Any) -> JobGenerator:
    return GENERATORS[name](CoatOptions(**options))


async def test_slurm_submits_the_script_of_blackdynamites_coat(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    generator = make("slurm", options=["partition=debug", "--time=0:05:00"], module="gcc")
    (answer,) = await generator.submit([task])
    assert answer.error is None
    assert answer.handle == {"job": "12"}
    script = (task.directory / "launch.sh").read_text()
    assert script == SLURM_SCRIPT.format(directory=task.directory, user=getpass.getuser())
    assert (task.directory / "executed").exists()
    assert (tmp_path / "calls").read_text() == f"sbatch launch.sh in {task.directory}\n"


@pytest.mark.parametrize("given", [["time=1:00", "--qos=high"], ("--time=1:00", "qos=high")])
async def test_a_runs_own_slurm_options_win(scheduler: Path, task: LaunchTask, given: Any) -> None:
    task.options["slurm_options"] = given  # type: ignore[index]
    await make("slurm", options=["time=9:00", "partition=debug"]).submit([task])
    lines = (task.directory / "launch.sh").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    assert asked == [
        "job-name=7_wf",
        "signal=B:TERM@60",
        "partition=debug",
        "time=1:00",
        "qos=high",
        f"chdir={task.directory}",
    ]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "pbs",
            [
                "#PBS -l walltime=1:00:00",
                "#PBS -N wf_7",
                "#PBS -l nodes=16",
                "#PBS -q long",
                "module load gcc",
                'canYouDigIt runs update --truerun "state=PBS killed"',
                "export BLACKDYNAMITE_RUN_ID=7",
                "touch executed",
            ],
        ),
        (
            "sge",
            [
                "#$ -l walltime=1:00:00",
                "#$ -N run7-wf",
                "#$ -pe orte8 16",
                "#$ -q long",
                "module load gcc",
                'canYouDigIt runs update --truerun "state=SGE killed"',
                "export BLACKDYNAMITE_RUN_ID=7",
                "touch executed",
            ],
        ),
    ],
)
async def test_pbs_and_sge_submit_with_qsub(
    scheduler: Path, task: LaunchTask, tmp_path: Path, name: str, lines: list[str]
) -> None:
    generator = make(name, options="-q long", module=["gcc"], walltime="1:00:00")
    (answer,) = await generator.submit([task])
    assert answer.handle == {"job": "12.server"}
    script = (task.directory / "launch.sh").read_text().splitlines()
    assert [line for line in lines if line not in script] == []
    # A scheduler stops to read directives at the first command.
    assert script.index(lines[3]) < script.index("module load gcc")
    assert (tmp_path / "calls").read_text() == f"qsub launch.sh in {task.directory}\n"
    assert generator.launched_state == f"{name.upper()} submit"


async def test_a_command_that_fails_is_the_answers_error_and_the_others_go_on(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    program(scheduler, "sbatch", 'if [ -e refuse ]; then echo "no such partition" >&2; exit 3; fi; echo 5')
    (task.directory / "refuse").touch()
    other = tmp_path / "run-8"
    other.mkdir()
    (other / "launch.sh").write_text("true")
    absent = LaunchTask(
        tag="t-9", task="add.9", run_id=9, run_name="wf", directory=tmp_path / "no", script="launch.sh"
    )
    fine = LaunchTask(tag="t-8", task="add.8", run_id=8, run_name="wf", directory=other, script="launch.sh")
    refused, missing, submitted = await make("slurm").submit([task, absent, fine])
    assert refused.handle is None
    assert refused.error == "`sbatch launch.sh` ended with exit code 3: no such partition"
    assert missing.error is not None
    assert "cannot submit add.9" in missing.error
    assert submitted.handle == {"job": "5"}


@pytest.mark.parametrize(("name", "command"), [("slurm", "sbatch"), ("pbs", "qsub"), ("sge", "qsub")])
def test_a_scheduler_that_is_not_there_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, command: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=f"'{command}'.*not on the PATH") as raised:
        make(name)
    assert "generator: bash" in str(raised.value)


async def test_jobs_are_cancelled_with_the_schedulers_program(
    scheduler: Path, task: LaunchTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slurm, pbs = make("slurm"), make("pbs")
    await slurm.submit([task])
    assert await pbs.adopt([(task, {"job": "9.server"})])
    (tmp_path / "calls").unlink()
    await slurm.cancel([task.tag, "unknown"])
    await slurm.cancel([task.tag])  # once is enough
    await pbs.cancel([task.tag])
    calls = [line.partition(" in ")[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["scancel 12", "qdel 9.server"]
    assert "`qdel 9.server` ended with exit code 1" in caplog.text


async def test_a_job_that_may_have_been_submitted_is_taken_for_alive(
    scheduler: Path, task: LaunchTask
) -> None:
    generator = make("slurm")
    assert await generator.adopt([(task, {"job": "12"})])
    # The launcher died before it could write the handle down:
    assert not await generator.adopt([(task, None)])
    (task.directory / SUBMITTED_FILE).write_text("an earlier attempt")
    assert not await generator.adopt([(task, None)])
    (task.directory / SUBMITTED_FILE).write_text(task.tag)
    assert await generator.adopt([(task, None)])


def test_options_are_a_list_or_a_mapping() -> None:
    assert CoatOptions.from_strings(["time=1:00", "--qos=high"]).options == ("time=1:00", "qos=high")
    assert CoatOptions(options="a=1", module=["x", "y"]).module == ("x", "y")
    with pytest.raises(TypeError):
        CoatOptions(modules=["x"])  # type: ignore[call-arg]


def test_the_coats_own_modules_are_not_touched(scheduler: Path) -> None:
    from BlackDynamite.coating import slurmCoat

    assert slurmCoat.subprocess is subprocess
    assert issubclass(GENERATORS["slurm"], CoatGenerator)
