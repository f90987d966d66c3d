"""What job scripts do, without a scheduler: bash executes them here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from motoko_core.daemons import is_gone
from motoko_core.interfaces import EXECUTE, ExitRecord, LaunchTask, exit_record_path, read_exit_record
from motoko_plugins.generators._job_script import body, quote
from motoko_plugins.generators._records import close_records
from tests.plugins.scheduling import Runs, runs, until

__all__ = ["runs"]

WAITS = "touch begun\nuntil [ -e end ]; do sleep 0.05; done\n"
AWARE = """\
import pathlib, signal, time
signal.signal(signal.SIGUSR1, lambda number, frame: pathlib.Path("warned").touch())
pathlib.Path("begun").touch()
while not pathlib.Path("end").exists():
    time.sleep(0.05)
"""


#: A second signal ends it, however soon it comes.
ONCE = """\
import ctypes, pathlib, re, signal, time
libc = ctypes.CDLL(None)
libc.sysv_signal(signal.SIGTERM, libc.getpid)
pathlib.Path("begun").touch()
while int(re.search("SigCgt:(.*)", pathlib.Path("/proc/self/status").read_text())[1], 16) >> 14 & 1:
    time.sleep(0.05)
time.sleep(0.3)
pathlib.Path("warned").touch()
"""
SAVES = """\
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    pathlib.Path("warned").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
pathlib.Path("begun").touch()
while True:
    signal.pause()
"""


def script(tasks: Sequence[LaunchTask], modules: Sequence[str] = ()) -> str:
    return body(
        {3: tasks},
        job="$JOB",
        index="3",
        submit_directory="SUBMITTED_IN",
        warning="USR1",
        modules=modules,
    )


class Jobs:
    """Starts job scripts, in sessions of their own."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, text: str, job: str = "7_3", **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["bash", "-c", text],
            env={**os.environ, "JOB": job, **environment},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def execute() -> Iterator[Jobs]:
    """Start job scripts; what is left of them is killed."""
    jobs = Jobs()
    yield jobs
    for process in jobs.processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def canaries(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process that does nothing but tell which processes of a job are signalled."""
    found = []
    for process in psutil.Process(job.pid).children():
        with suppress(psutil.Error):
            found += [process] if process.cmdline()[:1] == ["tail"] else []
    return found


def shell(place: Path, text: str) -> str:
    """Put a bash that says something first before the real one; answer the PATH."""
    place.mkdir()
    (place / "bash").write_text(f'#!/bin/sh\n{text}\nexec {shutil.which("bash")} "$@"\n')
    (place / "bash").chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def has_ended(task: LaunchTask) -> bool:
    found = record(task)
    return found is not None and found.exit_code is not None


def record(task: LaunchTask) -> ExitRecord | None:
    return read_exit_record(task.directory, task.tag)


def test_the_runs_of_a_job_are_executed_one_after_another(runs: Runs, execute: Jobs) -> None:
    batch = [runs('echo "$PWD $SUBMITTED_IN"'), runs("kill -9 $$"), runs("cat; exit 5"), runs("true")]
    job = execute(script(batch))
    assert job.wait(60) == 5
    assert batch[0].stdout.read_text() == f"{batch[0].directory} {batch[0].directory}\n"
    assert [record(task) for task in batch] == [
        ExitRecord(job="7_3", exit_code=code) for code in (0, -9, 5, 0)
    ]
    assert job.stdout is not None
    assert job.stdout.read() == b""


def test_another_job_executes_nothing_again(runs: Runs, execute: Jobs) -> None:
    task = runs("echo x >> executed")
    assert execute(script([task])).wait(60) == 0
    assert execute(script([task]), job="8_3").wait(60) == 125
    assert execute(script([task])).wait(60) == 125  # nor does the same one, started again
    assert (task.directory / "executed").read_text() == "x\n"


async def test_a_warning_reaches_those_that_know_it_and_no_other_run_begins(
    runs: Runs, execute: Jobs
) -> None:
    task, later = runs("python aware.py & sleep 600 &\nwait %1; code=$?; kill %2; exit $code"), runs("true")
    (task.directory / "aware.py").write_text(AWARE)
    job = execute(script([task, later]))
    await until((task.directory / "begun").exists)
    job.send_signal(signal.SIGUSR1)  # the shell alone, as `--signal=B:USR1` does
    await until((task.directory / "warned").exists)
    (task.directory / "end").touch()
    assert job.wait(60) == 143
    assert record(task) == ExitRecord(job="7_3", exit_code=0)  # neither its shell nor `sleep` died of it
    assert record(later) is None


async def test_a_warning_before_the_first_run_lets_it_begin(runs: Runs, execute: Jobs) -> None:
    task = runs("true")
    text = script([task]).replace("motoko_job=", "kill -USR1 $$\nmotoko_job=", 1)
    assert execute(text).wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=0)


@pytest.mark.parametrize(
    ("text", "code"), [(WAITS, -15), (f"trap 'exit 4' TERM\n{WAITS}", 4), (f"trap 'exit 0' TERM\n{WAITS}", 0)]
)
async def test_a_job_that_is_ended_says_how_its_run_ended(
    runs: Runs, execute: Jobs, text: str, code: int
) -> None:
    task, later = runs(text), runs("true")
    job = execute(script([task, later]))
    await until((task.directory / "begun").exists)
    os.killpg(job.pid, signal.SIGTERM)  # every process of the job, as schedulers do
    assert job.wait(60) == 143
    assert record(task) == ExitRecord(job="7_3", exit_code=code)
    assert record(later) is None
    # The scheduler starts it again: what it has interrupted, and what had not begun.
    (task.directory / "end").touch()
    again = execute(script([task, later]))
    assert again.wait(60) == (125 if code == 0 else 0)
    assert record(task) == ExitRecord(job="7_3", exit_code=0, starts=1 if code == 0 else 2)
    assert record(later) == ExitRecord(job="7_3", exit_code=0)


async def test_a_run_whose_processes_are_ended_before_its_job_hears_of_it_is_executed_again(
    runs: Runs, execute: Jobs
) -> None:
    """SLURM signals the processes of a job one after another, the job script last."""
    task, later = runs(f"echo $$ > pid\n{WAITS}"), runs("true")
    job = execute(script([task, later]).replace("{1..10}", "{1..999}"))
    await until((task.directory / "begun").exists)
    os.kill(int((task.directory / "pid").read_text()), signal.SIGTERM)
    await until(lambda: has_ended(task))
    await until(lambda: canaries(job))
    (canary,) = canaries(job)
    canary.terminate()
    await until(lambda: "stopped" in exit_record_path(task.directory, task.tag).read_text())
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    assert record(later) is None
    (task.directory / "end").touch()
    assert execute(script([task, later])).wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=0, starts=2)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (WAITS, -15),
        (f"trap 'exit 4' TERM\n{WAITS}", 4),
        ("python aware.py\ntouch end", -15),  # the program saves, and what comes after it does not begin
        ("exec python aware.py", 0),
        ("exec python once.py", 0),
        (f"touch begun\n{'sleep 60 & ' * 40}sleep 60\ntouch end", -15),  # parents hear of it first
    ],
)
async def test_a_job_that_hears_alone_that_it_is_to_end_tells_its_run(
    runs: Runs, execute: Jobs, text: str, code: int
) -> None:
    """So does SLURM signal jobs where it follows them by cgroups."""
    task, later = runs(text), runs("true")
    (task.directory / "aware.py").write_text(SAVES)
    (task.directory / "once.py").write_text(ONCE)
    job = execute(script([task, later]))
    await until((task.directory / "begun").exists)
    job.send_signal(signal.SIGTERM)
    await until(lambda: "stopped" in exit_record_path(task.directory, task.tag).read_text())
    job.send_signal(signal.SIGUSR1)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    assert record(task) == ExitRecord(job="7_3", exit_code=code)
    assert record(later) is None
    assert (task.directory / "warned").exists() == (".py" in text)
    assert not (task.directory / "end").exists()


@pytest.mark.parametrize("variable", ["TMOUT", "POSIXLY_CORRECT"])
async def test_what_ends_reads_of_a_shell_ends_no_run(runs: Runs, execute: Jobs, variable: str) -> None:
    task, later = runs(WAITS), runs("[[ -e ../run-1/end ]]")
    job = execute(script([task, later]), **{variable: "1"})
    await until((task.directory / "begun").exists)
    if variable == "POSIXLY_CORRECT":
        job.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(3)
    (task.directory / "end").touch()
    job.wait(60)
    assert record(task) == ExitRecord(job="7_3", exit_code=0)


def test_what_the_environment_of_shells_does_is_not_taken_for_the_words_of_a_run(
    runs: Runs, execute: Jobs, tmp_path: Path
) -> None:
    (tmp_path / "rc").write_text("echo hello\necho there >&2\n")
    task = runs("exit 3")
    assert execute(script([task]), BASH_ENV=str(tmp_path / "rc")).wait(60) == 3
    assert record(task) == ExitRecord(job="7_3", exit_code=3)
    assert task.stdout.read_text() == "hello\n"


@pytest.mark.parametrize("code", [0, 3, 137])
def test_what_libraries_print_into_every_process_is_not_taken_for_the_words_of_a_run(
    runs: Runs, execute: Jobs, tmp_path: Path, code: int
) -> None:
    task, later = runs(f"sleep 0.1; touch done; exit {code}"), runs("[[ -e ../run-1/done ]]")
    path = shell(tmp_path / "bin", "printf 'hello\\nthere'; printf 'hello\\nthere' >&2")
    assert execute(script([task, later]), PATH=path).wait(60) == code
    assert record(task) == ExitRecord(job="7_3", exit_code=code)
    assert record(later) == ExitRecord(job="7_3", exit_code=0)


@pytest.mark.parametrize("option", ["errexit", "nounset", "noclobber", "posix"])
def test_options_of_the_environment_change_nothing_of_what_a_job_does(
    runs: Runs, execute: Jobs, tmp_path: Path, option: str
) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text("module() { true; }\n")
    (tmp_path / "rc").write_text(f"set -o {option}\n")
    batch = [runs("exit 3"), runs("echo $SHELLOPTS")]
    environment = {"MODULESHOME": str(tmp_path), "BASH_ENV": str(tmp_path / "rc")}
    assert execute(script(batch, modules=["gcc"]), **environment).wait(60) == 3
    assert [record(task) for task in batch] == [ExitRecord(job="7_3", exit_code=code) for code in (3, 0)]
    assert option in batch[1].stdout.read_text().strip().split(":")  # the script's shell has them


def test_a_run_reads_what_its_user_has_every_shell_read(runs: Runs, execute: Jobs, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text("place=here\n")
    task = runs("echo $place $-")
    assert execute(script([task]), BASH_ENV=str(tmp_path / "rc"), SHELLOPTS="nounset").wait(60) == 0
    place, options = task.stdout.read_text().split()
    assert place == "here"
    assert "p" not in options  # no shell with privileges


def test_a_run_is_executed_in_posix_mode_if_its_user_wants_that(runs: Runs, execute: Jobs) -> None:
    task = runs("shopt -po posix; echo $POSIXLY_CORRECT")
    assert execute(script([task]), POSIXLY_CORRECT="y").wait(60) == 0
    assert task.stdout.read_text() == "set -o posix\ny\n"


async def test_a_signal_that_is_no_end_does_not_keep_a_run_from_hearing_of_its_end(
    runs: Runs, execute: Jobs
) -> None:
    task = runs("trap '' USR2; exec python aware.py")
    (task.directory / "aware.py").write_text(SAVES)
    job = execute(f"trap : USR2\n{script([task])}")
    await until((task.directory / "begun").exists)
    await until(lambda: canaries(job))
    (canary,) = canaries(job)
    os.killpg(job.pid, signal.SIGUSR2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 0
    assert (task.directory / "warned").exists()
    assert is_gone(canary)


def test_a_warning_before_all_else_lets_the_first_run_begin_alone(runs: Runs, execute: Jobs) -> None:
    first, later = runs("true"), runs("true")
    text = script([first, later]).replace(EXECUTE, f"kill -USR1 $$\n{EXECUTE}", 1)
    assert execute(text).wait(60) == 143
    assert record(first) == ExitRecord(job="7_3", exit_code=0)
    assert record(later) is None


def test_a_run_whose_end_was_told_is_not_executed_again(runs: Runs, execute: Jobs) -> None:
    """Somebody may have its job started again."""
    interrupted, waiting = runs("echo x >> executed; exit 143"), runs("touch executed")
    assert execute(script([interrupted])).wait(60) == 143
    with exit_record_path(interrupted.directory, interrupted.tag).open("a") as file:
        file.write("\nstopped by SIGTERM 1\n")
    close_records([interrupted, waiting])
    assert execute(script([interrupted, waiting])).wait(60) == 125
    assert record(interrupted) == ExitRecord(job="7_3", exit_code=-15)
    assert record(waiting) is None
    assert (interrupted.directory / "executed").read_text() == "x\n"
    assert not (waiting.directory / "executed").exists()


async def test_an_execution_that_was_given_up_does_not_speak_for_the_next(runs: Runs, execute: Jobs) -> None:
    """SLURM starts a job again whose node it cannot reach, whatever the processes there do."""
    task = runs("[[ -e begun-1 ]] && n=2 || n=1; touch begun-$n; until [[ -e end-$n ]]; do sleep 0.05; done")
    given_up = execute(script([task]))
    await until((task.directory / "begun-1").exists)
    again = execute(script([task]))
    await until((task.directory / "begun-2").exists)
    (task.directory / "end-1").touch()
    assert given_up.wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=None, starts=2)
    (task.directory / "end-2").touch()
    assert again.wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=0, starts=2)


async def test_nothing_is_left_of_a_job_that_is_killed_alone(runs: Runs, execute: Jobs) -> None:
    job = execute(script([runs(f"touch begun; {WAITS}")]))
    await until(lambda: canaries(job))
    (canary,) = canaries(job)
    job.kill()
    job.wait(60)
    await until(lambda: is_gone(canary))


async def test_a_run_that_is_killed_because_it_did_not_end_is_executed_again(
    runs: Runs, execute: Jobs
) -> None:
    task = runs(f"trap '' TERM\necho $$ > pid\n{WAITS}")
    job = execute(script([task]))
    await until((task.directory / "begun").exists)
    os.killpg(job.pid, signal.SIGTERM)
    await until(lambda: "stopped" in exit_record_path(task.directory, task.tag).read_text())
    job.send_signal(signal.SIGSTOP)  # it is killed before it sees that its run was
    os.kill(int((task.directory / "pid").read_text()), signal.SIGKILL)
    await until(lambda: has_ended(task))
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(60)
    assert record(task) == ExitRecord(job="7_3", exit_code=-9)
    (task.directory / "end").touch()
    assert execute(script([task])).wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=0, starts=2)


async def test_a_job_that_was_killed_executes_its_run_again_when_it_is_started_again(
    runs: Runs, execute: Jobs
) -> None:
    task = runs(WAITS)
    job = execute(script([task]))
    await until((task.directory / "begun").exists)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(60)
    assert record(task) == ExitRecord(job="7_3", exit_code=None)
    (task.directory / "end").touch()
    assert execute(script([task]), job="9_3").wait(60) == 125
    assert execute(script([task])).wait(60) == 0
    assert record(task) == ExitRecord(job="7_3", exit_code=0, starts=2)


def test_modules_are_loaded_before_the_runs(runs: Runs, execute: Jobs, tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(
        'module() { echo "module $*" >&2; loaded="$loaded $*"; export loaded; [[ $2 != no* ]]; }\n'
    )
    task, other = runs('echo "$loaded"'), runs("true")
    text = script([task, other], modules=["gcc/12", "it's"])
    assert execute(text, MODULESHOME=str(tmp_path), **{"BASH_FUNC_module%%": ""}).wait(60) == 0
    assert task.stdout.read_text() == " purge load gcc/12 load it's\n"


def test_a_module_that_is_missing_is_said_in_the_standard_error_of_the_runs(
    runs: Runs, execute: Jobs, tmp_path: Path
) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text('module() { echo "module $*?" >&2; [[ $2 != none ]]; }\n')
    batch = [runs("touch executed"), runs("touch executed")]
    assert execute(script(batch, modules=["none"]), MODULESHOME=str(tmp_path)).wait(60) == 127
    for task in batch:
        message = task.stderr.read_text()
        assert "module load none?" in message
        assert "motoko: 'module load none' failed on" in message
        assert not (task.directory / "executed").exists()
        assert not exit_record_path(task.directory, task.tag).exists()


def test_no_run_is_executed_without_its_modules_because_no_message_can_be_kept(
    runs: Runs, execute: Jobs, tmp_path: Path
) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text("module() { true; }\n")
    task = runs("touch executed")
    text = f"mktemp() {{ false; }}\n{script([task], modules=['gcc'])}"
    assert execute(text, MODULESHOME=str(tmp_path)).wait(60) == 127
    assert "modules cannot be loaded" in task.stderr.read_text()
    assert not (task.directory / "executed").exists()


def test_a_job_that_is_started_again_leaves_the_next_attempts_files_alone(
    runs: Runs, execute: Jobs, tmp_path: Path
) -> None:
    task = runs("true")
    close_records([task])
    task.stderr.write_text("another attempt")
    assert execute(script([task], modules=["none"]), MODULESHOME=str(tmp_path)).wait(60) == 125
    assert task.stderr.read_text() == "another attempt"


def test_a_cluster_without_modules_is_told_from_one_with(runs: Runs, execute: Jobs, tmp_path: Path) -> None:
    task = runs("true")
    text = script([task], modules=["gcc"]).replace("/etc/profile.d", str(tmp_path))
    assert execute(text, MODULESHOME="", LMOD_PKG="").wait(60) == 127
    assert "has no command 'module'" in task.stderr.read_text()


def test_a_directory_that_is_out_of_reach_does_not_keep_the_others(runs: Runs, execute: Jobs) -> None:
    gone, other = runs("true"), runs("true")
    (gone.directory / "launch.sh").unlink()
    gone.directory.rmdir()
    assert execute(script([gone, other])).wait(60) == 126
    assert record(other) == ExitRecord(job="7_3", exit_code=0)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a b", "it's", '"', "$(x)`y`\\", "\\", "a\nb", "\r\n", "\t\x01\x7f", "é\n\udcff", "'\n'\\'\\n"],
)
def test_quoted_text_is_one_line_and_comes_out_as_it_was(text: str) -> None:
    quoted = quote(text)
    assert "\n" not in quoted
    assert "\r" not in quoted
    code = f"{sys.executable} -c 'import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]))' "
    done = subprocess.run(["bash", "-c", code + quoted], capture_output=True, check=True)
    assert done.stdout == os.fsencode(text)
