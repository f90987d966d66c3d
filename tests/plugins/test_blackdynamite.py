"""BlackDynamite's coats and users' own as generators, with programs that stand for a scheduler's."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, exit_record_path, read_exit_record
from motoko_core.launch.workspace import exec_script
from motoko_core.testing.following import Following, until
from motoko_plugins.generators._coat_runner import SUBMITTED_FILE, job_in
from motoko_plugins.generators._coats import CoatOptions, find_coat
from motoko_plugins.generators._processes import processes_of, signal_process
from motoko_plugins.generators.blackdynamite import motoko_generator_from_name, motoko_generators
from tests.conftest import TIMEOUT_S

QUICK: dict[str, Any] = {"poll_interval_s": 0.02, "status_interval_s": 0.02, "lost_after_s": 0.2}

LOCAL = """\
import subprocess
def launch(run, params):
    exec_file = run.getExecFile()
    with open(exec_file["filename"], "w") as file:
        file.write("#!/bin/bash\\n" + exec_file["file"])
    {how}
"""
BACKGROUND = 'subprocess.Popen(["bash", exec_file["filename"]])'


def program(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/bash\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the PATH with a scheduler's programs, which write down how they are called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    called = f'echo "$(basename $0) $* in $PWD" >> {tmp_path}/calls'
    answer = 'echo "Your job 12 (\\"name\\") has been submitted"'
    program(directory, "qsub", f"{called}; JOB_ID=12 nohup sh $1 &> output & {answer}")
    program(directory, "qdel", called)
    program(directory, "qstat", f"cat {tmp_path}/queue")
    (tmp_path / "queue").write_text("job-ID prior name\n12 0.5 name\n")
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


def write_task(directory: Path, script: str, number: int = 7, **changes: Any) -> LaunchTask:
    directory.mkdir()
    text = exec_script(script, host="zeo:///somewhere/add", study="jane_add", run_id=number, user="jane")
    (directory / "launch.sh").write_text(text)
    values: dict[str, Any] = {"nproc": 16, "run_name": "wf", "run_id": number, "task": f"add.{number}"}
    values |= {"tag": f"motoko-{directory.name}", "directory": directory, "script": "launch.sh"}
    return LaunchTask(**(values | changes))


@pytest.fixture
def task(tmp_path: Path) -> LaunchTask:
    return write_task(tmp_path / "run-7", "echo >> executed; exit 3\n")


def sge(**options: Any) -> Following:
    kind = motoko_generators()["sge"]
    return Following(kind(CoatOptions(**QUICK | options)), TIMEOUT_S)


def local(directory: Path, source: str, name: str = "mine", **options: Any) -> Following:
    """A user's coat, with a file of its own for each source."""
    (directory / f"{name}Coat.py").write_text(source)
    kind = motoko_generator_from_name(name, directory)
    assert kind is not None
    return Following(kind(CoatOptions(**QUICK | options)), TIMEOUT_S)


async def end_of(generator: Following, task: LaunchTask) -> Ended:
    async with generator:
        (answer,) = (await generator.submit([task])).values()
        assert answer.error is None
        return await generator.end(task)


# ---------------------------------------------------------------------- sge


async def test_sge_submits_the_script_of_blackdynamites_coat(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    generator = sge(options="-q long", module=["gcc"], walltime="1:00:00")
    assert generator.generator.launched_state == "SGE submit"
    end = await end_of(generator, task)
    assert (end.exit_code, end.reason) == (3, None)
    assert (task.directory / "executed").read_text() == "\n"
    record = read_exit_record(task.directory, task.tag)
    assert record is not None
    assert record.job == "12"
    lines = (task.directory / "launch.sh").read_text().splitlines()
    expected = [
        "#$ -S /bin/sh",
        "#$ -l walltime=1:00:00",
        "#$ -N run7-wf",
        "#$ -pe orte8 16",
        "#$ -q long",
        "module load gcc",
        "export BLACKDYNAMITE_HOST=zeo:///somewhere/add",
        "export BLACKDYNAMITE_RUN_ID=7",
        'canYouDigIt runs update --truerun "state=SGE killed"',
    ]
    assert [line for line in expected if line not in lines] == []
    # A scheduler stops to read directives at the first command.
    assert lines.index("#$ -q long") < lines.index("module load gcc")
    assert (tmp_path / "calls").read_text() == f"qsub launch.sh in {task.directory}\n"


def test_a_scheduler_that_is_not_there_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"'qsub'.*not on the PATH") as raised:
        sge()
    assert "generator: bash" in str(raised.value)


async def test_a_command_that_fails_ends_its_run_and_the_others_go_on(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    program(scheduler, "qsub", "[ -e refuse ] && { echo no such queue >&2; exit 3; }; sh $1 & echo 12")
    (task.directory / "refuse").touch()
    fine = write_task(tmp_path / "run-8", "exit 0\n", 8)
    absent = attrs.evolve(fine, tag="motoko-run-9", task="add.9", directory=tmp_path / "no")
    newline = write_task(tmp_path / "run-\n10", "exit 0\n", 10, tag="motoko-10")
    async with sge() as generator:
        answers = await generator.submit([task, absent, newline, fine])
        assert "cannot submit add.9" in (answers[absent.tag].error or "")
        assert "line end in its name" in (answers[newline.tag].error or "")
        refused, good = await generator.ends([task, fine])
    assert (refused.exit_code, refused.reason) == (None, "SUBMIT")
    assert "sgeCoat failed: its command ended with exit code 3: no such queue" in refused.message
    assert not (task.directory / "executed").exists()
    assert (good.exit_code, good.reason) == (0, None)


async def test_a_run_that_cannot_be_handed_over_keeps_no_other_back(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    entries = write_task(tmp_path / "run-8", "", 8, options={"table": {(0, 1): 2.0}})
    name = write_task(tmp_path / "run-9", "", 9, run_name="\ud800")
    async with sge() as generator:
        answers = await generator.submit([entries, name, task])
        assert "cannot submit add.8: keys must be str" in (answers[entries.tag].error or "")
        odd, fine = await generator.ends([name, task])
    assert odd.reason == "SUBMIT"
    assert "surrogates not allowed" in odd.message
    assert fine.exit_code == 3


async def test_runs_whose_coat_cannot_be_started_end_with_the_reason(
    scheduler: Path, task: LaunchTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = sge()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    end = await end_of(generator, task)
    assert end.reason == "SUBMIT"
    assert "No such file" in end.message


async def test_a_run_name_puts_no_directive_into_the_script(scheduler: Path, task: LaunchTask) -> None:
    task = attrs.evolve(task, run_name="it's\n#$ -q other.q\n")
    assert (await end_of(sge(), task)).exit_code == 3
    directives = [
        line for line in (task.directory / "launch.sh").read_text().splitlines() if line[:2] == "#$"
    ]
    assert "#$ -pe orte8 16" in directives
    assert "#$ -q other.q" not in directives
    assert task.stdout.exists()


async def test_a_command_that_submits_and_then_fails_has_submitted(scheduler: Path, task: LaunchTask) -> None:
    program(scheduler, "qsub", "sh $1; echo connection timed out >&2; exit 1")
    end = await end_of(sge(status=""), task)
    assert (end.exit_code, end.reason) == (3, None)
    assert (task.directory / "executed").read_text() == "\n"


async def test_a_job_that_the_scheduler_forgets_is_lost(
    scheduler: Path, task: LaunchTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program(scheduler, "qsub", "echo Your job 12 has been submitted")
    async with sge() as generator:
        await generator.submit([task])
        # One that does not answer knows nothing about the job.
        program(scheduler, "qstat", f"echo >> {tmp_path}/asked; echo no master >&2; exit 1")
        await until((tmp_path / "asked").exists, "asked", TIMEOUT_S)
        program(scheduler, "qstat", "echo 112 120 1.2")
        end = await generator.end(task)
    assert (end.exit_code, end.reason) == (None, "LOST")


#: More than the system takes: such a command cannot even be started.
ENDLESS = "#" * 200_000


@pytest.mark.parametrize("status", [f"qstat {ENDLESS}", f"qstat {{job}} {ENDLESS}"])
async def test_a_status_command_that_cannot_be_started_tells_nothing(
    scheduler: Path, task: LaunchTask, tmp_path: Path, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (task.directory / "launch.sh").write_text(f"read < {fifo}\nexit 3\n")
    async with sge(status=status, lost_after_s=0.02) as generator:
        await generator.submit([task])
        with await asyncio.to_thread(fifo.open, "w") as writer:
            await until(lambda: caplog.text.count("did not end well") > 3, "asked", TIMEOUT_S)
            writer.write("go\n")
        end = await generator.end(task)
    assert (end.exit_code, end.reason) == (3, None)


async def test_many_jobs_are_asked_for_a_few_at_a_time(
    scheduler: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [write_task(tmp_path / f"run-{number}", "", number) for number in range(60)]
    for task in batch:
        (task.directory / SUBMITTED_FILE).write_text(json.dumps({"tag": task.tag, "job": "12"}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with sge(status="exit 1; : {job}") as generator:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 100, hard))
            await generator.adopt([(task, {}) for task in batch])
            ends = await generator.ends(batch)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {end.reason for end in ends} == {"LOST"}
    assert "did not end well" not in caplog.text


async def test_a_mistake_in_what_follows_the_jobs_is_told(scheduler: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "run-7", "until [ -e end ]; do sleep 0.05; done\n")
    generator = sge().generator
    generator._status_command = 5  # type: ignore[attr-defined]
    await generator.submit([task])
    with pytest.raises(TypeError, match="not iterable"):
        await asyncio.wait_for(anext(generator.ended()), TIMEOUT_S)
    (task.directory / "end").touch()
    await generator.close()


async def test_jobs_are_cancelled_with_the_schedulers_program(
    scheduler: Path, task: LaunchTask, tmp_path: Path
) -> None:
    program(scheduler, "qsub", "echo Your job 12 has been submitted; [ -e begin ] && nohup sh $1 &> output &")
    begun = write_task(tmp_path / "run-8", "echo > started; sleep 1000\n", 8)
    (begun.directory / "begin").touch()
    async with sge() as generator:
        await generator.submit([task, begun])
        await until((begun.directory / "started").exists, "begun", TIMEOUT_S)
        jobs = generator.generator._jobs  # type: ignore[attr-defined]
        await until(lambda: jobs[task.tag].job and jobs[begun.tag].job, "known", TIMEOUT_S)
        program(scheduler, "qdel", f"echo $* >> {tmp_path}/calls")
        await generator.generator.cancel([task.tag, begun.tag, "motoko-unknown"])
        (tmp_path / "queue").write_text("")
        for pid in processes_of([begun.tag]).get(begun.tag, []):
            signal_process(pid, signal.SIGKILL)
        ends = await generator.ends([task, begun])
    assert [end.reason for end in ends] == ["CANCELLED", "CANCELLED"]
    assert (tmp_path / "calls").read_text() == "12 12\n"
    # It never begins, whenever the scheduler thinks of it.
    assert read_exit_record(task.directory, task.tag) is not None


async def test_a_job_in_the_queue_is_followed_by_the_next_launcher(scheduler: Path, task: LaunchTask) -> None:
    (task.directory / SUBMITTED_FILE).write_text(json.dumps({"tag": "motoko-earlier", "job": "11"}))
    async with sge() as generator:
        assert await generator.adopt([(task, {})]) == set()
    exit_record_path(task.directory, task.tag).unlink()
    (task.directory / SUBMITTED_FILE).write_text(json.dumps({"tag": task.tag, "job": "12"}))
    async with sge() as generator:
        assert await generator.adopt([(task, {})]) == {task.tag}
        await generator.generator.cancel([task.tag])
        assert (await generator.end(task)).reason == "CANCELLED"


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ('Your job 7 ("run7-wf") has been submitted', "7"),
        ('Unable to run job: warning: 2 of 3\nYour job 7 ("3") has been submitted\nExiting.', "7"),
        ('Your job-array 7.1-3:1 ("x") has been submitted', "7.1-3"),
        ("3 nodes\nSubmitted batch job 12", "12"),
        ("12.server.domain", "12.server.domain"),
        ("12;cluster", "12"),
        ("note: 5\n12\n", "12"),
        ("Job <12> is submitted to queue <normal>.", "12"),
        ("queued as 12.", "12"),
        ("", ""),
        ("thank you", ""),
    ],
)
def test_what_schedulers_call_a_job(text: str, job: str) -> None:
    assert job_in(text) == job


# ---------------------------------------------------------------------- users' coats


def test_a_coat_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, path = tmp_path / "beside", tmp_path / "path"
    for place in (beside, path):
        place.mkdir()
        (place / "oneCoat.py").write_text("def launch(run, params):\n    pass\n")
    (path / "two.py").write_text("import os\n\n@os.deco\ndef launch(run, params):\n    yield\n")
    (beside / "three.py").write_text("import slurm\n")
    monkeypatch.setenv("PYTHONPATH", str(path))
    assert find_coat("one", beside) == beside / "oneCoat.py"
    assert find_coat("one", None) == path / "oneCoat.py"
    assert find_coat("two", beside) == path / "two.py"
    assert find_coat("three", beside) is None
    assert find_coat("../one", beside) is None
    found = find_coat("bash", beside)
    assert found is not None
    assert found.parts[-3:] == ("BlackDynamite", "coating", "bashCoat.py")
    assert motoko_generator_from_name("three", beside) is None


async def test_a_coat_that_executes_the_run_itself(task: LaunchTask, tmp_path: Path) -> None:
    """BlackDynamite's bashCoat waits for the script; its exit code is the script's, not the coat's."""
    kind = motoko_generator_from_name("bash", tmp_path)
    assert kind is not None
    options = CoatOptions(**QUICK, params={"stdout": False})
    end = await end_of(Following(kind(options), TIMEOUT_S), task)
    assert (end.exit_code, end.reason) == (3, None)
    assert (task.directory / "executed").read_text() == "\n"


async def test_what_a_coat_writes_behind_the_script_is_not_executed(tmp_path: Path) -> None:
    source = LOCAL.format(how=BACKGROUND).replace('exec_file["file"])', 'exec_file["file"] + "touch behind")')
    task = write_task(tmp_path / "run-7", "exit 0\n")
    assert (await end_of(local(tmp_path, source), task)).exit_code == 0
    assert "touch behind" in (task.directory / "launch.sh").read_text()
    assert not (task.directory / "behind").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LOCAL.format(how="raise KeyError('queue')"), "KeyError: 'queue'"),
        (LOCAL.format(how="print('hm'); raise SystemExit(2)"), "SystemExit: 2\nhm"),
        (LOCAL.format(how="import os; os.system('exit 4')"), "exit code 4"),
        (LOCAL.format(how="subprocess.run(['false'])"), "exit code 1"),
        ("import nothing_at_all\n" + LOCAL.format(how="pass"), "No module named 'nothing_at_all'"),
        (
            "def register_param(parser):\n    parser.register_group('x')\n" + LOCAL.format(how="pass"),
            "has no option --mine_options fast",
        ),
        (LOCAL.format(how="import os; os.kill(os.getpid(), 9)"), "the coat's process died"),
    ],
)
async def test_a_coat_that_fails_is_told_with_its_reason(
    task: LaunchTask, tmp_path: Path, source: str, message: str
) -> None:
    end = await end_of(local(tmp_path, source, options=["fast"]), task)
    assert end.reason == "SUBMIT"
    assert message in end.message
    assert not (task.directory / "executed").exists()


async def test_a_coat_gets_the_runs_own_entries_and_the_options(tmp_path: Path) -> None:
    source = """
def register_param(parser):
    group = parser.register_group("mine")
    group.add_argument("--mine_options", nargs="*")
    group.add_argument("--queue")
    group.add_argument("--absent")
""" + LOCAL.format(
        how="print(run.slurm_options, run['nproc'], run.id, hasattr(run, 'no'), params['mine_options'],"
        " params['queue'], 'absent' in params, params['depth'],"
        " run.replaceBlackDynamiteVariables('__BLACKDYNAMITE__study__ __BLACKDYNAMITE__note__'),"
        " file=open('seen', 'w')); raise OSError"
    )
    task = write_task(tmp_path / "run-7", "", options={"slurm_options": ["a=1"], "note": "hello"})
    await end_of(local(tmp_path, source, options=["x y", "--queue long"], params={"depth": 3}), task)
    seen = (task.directory / "seen").read_text()
    assert seen == "['a=1'] 16 7 False ['x', 'y'] long False 3 jane_add hello\n"


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_run_that_vanishes_with_its_machine_is_lost(tmp_path: Path, renamed: bool) -> None:
    task = write_task(tmp_path / "run-7", "echo $$ > pid.new; mv pid.new pid; sleep 1000\n")
    async with local(tmp_path, LOCAL.format(how=BACKGROUND)) as generator:
        await generator.submit([task])
        await until((task.directory / "pid").exists, "started", TIMEOUT_S)
        record = exit_record_path(task.directory, task.tag)
        if renamed:
            record.write_text(record.read_text().replace(socket.gethostname(), "renamed"))
        os.killpg(os.getpgid(int((task.directory / "pid").read_text())), signal.SIGKILL)
        end = await generator.end(task)
    assert (end.exit_code, end.reason) == (None, "LOST")


async def test_runs_side_by_side_are_limited(tmp_path: Path) -> None:
    """A coat that waits occupies a place."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = LOCAL.format(how='subprocess.call(["bash", exec_file["filename"]])')
    first = write_task(tmp_path / "run-1", f"read < {fifo}\n", 1)
    second = write_task(tmp_path / "run-2", "exit 0\n", 2)
    async with local(tmp_path, source, at_once=1) as generator:
        await generator.submit([first, second])
        writer = await asyncio.to_thread(fifo.open, "w")
        assert not exit_record_path(second.directory, second.tag).exists()
        writer.write("go\n")
        writer.close()
        ends = await generator.ends([first, second])
    assert [end.exit_code for end in ends] == [0, 0]


@pytest.mark.parametrize(
    "wrong", [{"at_once": 0}, {"poll_interval_s": "x"}, {"status": ["qstat"]}, {"lost_after_s": True}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CoatOptions(**wrong)


def test_options_are_a_list_or_a_mapping() -> None:
    assert CoatOptions.from_strings(["-q long", "fast"]).options == ("-q long", "fast")
    assert CoatOptions(options="a=1", module=["x", "y"]).module == ("x", "y")
    with pytest.raises(TypeError):
        CoatOptions(modules=["x"])  # type: ignore[call-arg]


def test_one_coat_is_one_class(tmp_path: Path) -> None:
    (tmp_path / "mineCoat.py").write_text("def launch(run, params): ...\n")
    kind = motoko_generator_from_name("mine", tmp_path)
    assert kind is motoko_generator_from_name("mine", tmp_path)
    assert kind is not None
    assert issubclass(kind, JobGenerator)
    assert kind.launched_state == "launched"
