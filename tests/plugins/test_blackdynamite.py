"""BlackDynamite's coat for SGE as a generator, with programs that stand for the scheduler's."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import LaunchTask
from motoko_core.launch.workspace import exec_script
from motoko_plugins.generators.blackdynamite import (
    SUBMITTED_FILE,
    CoatOptions,
    SgeGenerator,
    motoko_generators,
)


def program(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/bash\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the PATH with a scheduler's programs, which write down how they are called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    called = f'echo "$(basename $0) $* in $PWD" >> {tmp_path}/calls'
    program(
        directory,
        "qsub",
        f"{called}; bash $1 &> output; echo 2 slots; echo 'Your job 12 (\"wf\") has been submitted'",
    )
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


async def test_runs_are_submitted_with_the_script_of_blackdynamites_coat(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    generator = SgeGenerator(CoatOptions(options="-q long", module=["gcc"], walltime="1:00:00"))  # type: ignore[arg-type]
    (answer,) = await generator.submit([task])
    assert answer.error is None
    assert answer.handle == {"job": "12"}
    script = (task.directory / "launch.sh").read_text().splitlines()
    lines = [
        "#$ -l walltime=1:00:00",
        "#$ -N run7-wf",
        "#$ -pe orte8 16",
        "#$ -q long",
        "module load gcc",
        'canYouDigIt runs update --truerun "state=SGE killed"',
        f"export BLACKDYNAMITE_USER={getpass.getuser()}",
        "export BLACKDYNAMITE_RUN_ID=7",
        "touch executed",
    ]
    assert [line for line in lines if line not in script] == []
    # A scheduler stops to read directives at the first command.
    assert script.index("#$ -q long") < script.index("module load gcc")
    assert (task.directory / "executed").exists()
    assert (tmp_path / "calls").read_text() == f"qsub launch.sh in {task.directory}\n"
    assert generator.launched_state == "SGE submit"


async def test_a_command_that_fails_is_the_answers_error_and_the_others_go_on(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    program(scheduler, "qsub", 'if [ -e refuse ]; then echo "no such queue" >&2; exit 3; fi; echo 5')
    (task.directory / "refuse").touch()
    other = tmp_path / "run-8"
    other.mkdir()
    (other / "launch.sh").write_text("true")
    absent = LaunchTask(
        tag="t-9", task="add.9", run_id=9, run_name="wf", directory=tmp_path / "no", script="launch.sh"
    )
    fine = LaunchTask(tag="t-8", task="add.8", run_id=8, run_name="wf", directory=other, script="launch.sh")
    refused, missing, submitted = await SgeGenerator().submit([task, absent, fine])
    assert refused.handle is None
    assert refused.error == "`qsub launch.sh` ended with exit code 3: no such queue"
    assert missing.error is not None
    assert "cannot submit add.9" in missing.error
    assert submitted.handle == {"job": "5"}


def test_a_scheduler_that_is_not_there_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"'qsub'.*not on the PATH") as raised:
        SgeGenerator()
    assert "generator: bash" in str(raised.value)


async def test_jobs_are_cancelled_with_the_schedulers_program(
    scheduler: Path, task: LaunchTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator, other = SgeGenerator(), SgeGenerator()
    await generator.submit([task])
    assert await other.adopt([(task, {"job": "9"})])
    (tmp_path / "calls").unlink()
    await generator.cancel([task.tag, "unknown"])
    await generator.cancel([task.tag])  # once is enough
    await other.cancel([task.tag])
    calls = [line.partition(" in ")[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["qdel 12", "qdel 9"]
    assert "`qdel 9` ended with exit code 1" in caplog.text


async def test_a_job_that_may_have_been_submitted_is_taken_for_alive(
    scheduler: Path, task: LaunchTask
) -> None:
    generator = SgeGenerator()
    assert await generator.adopt([(task, {"job": "12"})])
    # The launcher died before it could write the handle down:
    assert not await generator.adopt([(task, None)])
    (task.directory / SUBMITTED_FILE).write_text("an earlier attempt")
    assert not await generator.adopt([(task, None)])
    (task.directory / SUBMITTED_FILE).write_text(task.tag)
    assert await generator.adopt([(task, None)])


def test_options_are_a_list_or_a_mapping() -> None:
    assert CoatOptions.from_strings(["-q long", "-V"]).options == ("-q long", "-V")
    assert CoatOptions(options="a=1", module=["x", "y"]).module == ("x", "y")
    with pytest.raises(TypeError):
        CoatOptions(modules=["x"])  # type: ignore[call-arg]


def test_the_coats_own_modules_are_not_touched(scheduler: Path) -> None:
    from BlackDynamite.coating import sgeCoat

    assert sgeCoat.subprocess is subprocess
    assert motoko_generators() == {"sge": SgeGenerator}
