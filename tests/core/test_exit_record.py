"""The exit record, as real bash writes it when it executes a run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from motoko_core.daemons import wait_until
from motoko_core.exit_record import (
    EXECUTE,
    ExitRecord,
    exit_record_path,
    forbid_execution,
    read_exit_record,
)
from tests.conftest import TIMEOUT_S
from tests.disks import fill, full_disk

__all__ = ["full_disk"]

TAG = "motoko-add-7-0123456789ab"
CALL = '"$tag" "$directory" launch.sh "$directory/out" "$directory/err" "$job"'


@attrs.frozen
class Execution:
    """A run directory, and job scripts that execute its run."""

    directory: Path

    def write(self, script: str) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "launch.sh").write_text(script)

    def start(self, job: str = "12", *, before: str = "", after: str = "exit $?") -> subprocess.Popen[str]:
        """A scheduler's job: a script of its own, in a session of its own."""
        text = f"{EXECUTE}\n{before}\nmotoko_execute {CALL}\n{after}\n"
        words = ["bash", "-c", text]
        names = {"tag": TAG, "directory": str(self.directory), "job": job}
        return subprocess.Popen(
            words,
            env={**os.environ, **names},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Whoever runs the tests in the background of a shell has them ignored.
            preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGQUIT)],
        )

    def run(self, job: str = "12", **text: str) -> int:
        with self.start(job, **text) as process:
            process.communicate(timeout=TIMEOUT_S)
            return process.returncode

    def record(self) -> ExitRecord | None:
        return read_exit_record(self.directory, TAG)

    def lines(self) -> list[str]:
        return exit_record_path(self.directory, TAG).read_text().splitlines()

    def times(self) -> int:
        """How often the script has written that it is executed."""
        path = self.directory / "log"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_for(self, name: str) -> None:
        assert wait_until((self.directory / name).exists, TIMEOUT_S)


@pytest.fixture
def run(tmp_path: Path) -> Execution:
    return Execution(tmp_path / "run")


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 137, 143, 255])
def test_the_scripts_exit_code_is_recorded_and_answered(run: Execution, code: int) -> None:
    run.write(f"exit {code}")
    assert run.run() == code
    assert run.record() == ExitRecord(job="12", exit_code=code)
    assert run.lines() == ["started 12", "", "running", f"ended {code} 1"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_a_script_that_a_signal_ends_has_a_negative_code(run: Execution, number: int) -> None:
    run.write(f"kill -{number} $$")
    assert run.run() == 128 + number
    assert run.record() == ExitRecord(job="12", exit_code=-number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGPIPE, signal.SIGTERM])
def test_a_signal_of_which_bash_says_nothing_is_a_failure_all_the_same(run: Execution, number: int) -> None:
    run.write(f"kill -{number} $$")
    assert run.run() == 128 + number
    record = run.record()
    assert record is not None
    assert record.exit_code in (-number, 128 + number)


def test_a_signal_to_the_last_command_only_is_the_scripts_own_code(run: Execution) -> None:
    run.write("bash -c 'kill -9 $$'")
    assert run.run() == 137
    assert run.record() == ExitRecord(job="12", exit_code=137)


def test_output_tag_and_input_of_the_script(run: Execution) -> None:
    run.write('pwd; echo "$MOTOKO_TAG"; cat; echo problem >&2; echo $#')
    with run.start() as process:
        printed, _ = process.communicate("not for the script", timeout=TIMEOUT_S)
    assert printed == ""
    assert (run.directory / "out").read_text() == f"{run.directory}\n{TAG}\n0\n"
    assert (run.directory / "err").read_text() == "problem\n"


def test_signals_have_their_default_effect_in_the_script(run: Execution) -> None:
    """Bash lets what runs in the background ignore SIGINT, and no script could change that."""
    run.write("trap 'echo caught >> log' INT; kill -INT $$; exit 3")
    assert run.run() == 3
    assert run.times() == 1


def test_a_script_is_executed_under_strict_settings_of_the_job(run: Execution) -> None:
    run.write("kill -9 $$")
    assert run.run(before="set -euo pipefail") == 137
    assert run.record() == ExitRecord(job="12", exit_code=-9)


# ---------------------------------------------------------------------- twice


def test_a_second_job_does_not_execute_it_again(run: Execution) -> None:
    run.write("echo >> log; exit 7")
    assert run.run("12") == 7
    assert run.run("13") == 125
    assert run.run("12") == 125
    assert run.times() == 1
    assert run.record() == ExitRecord(job="12", exit_code=7)


def test_of_jobs_that_begin_at_the_same_time_one_executes_it(run: Execution) -> None:
    run.write("echo >> log; exit 7")
    jobs = [run.start(str(number), before="read") for number in range(12)]
    for job in jobs:
        assert job.stdin is not None
        job.stdin.close()
    codes = []
    for job in jobs:
        with job:
            codes.append(job.wait(TIMEOUT_S))
    assert sorted(codes) == [7] + [125] * 11
    assert run.times() == 1
    record = run.record()
    assert record is not None
    assert int(record.job) == codes.index(7)


def test_a_job_that_is_just_beginning_keeps_others_away(run: Execution) -> None:
    """It has made the record, and not written into it yet."""
    run.write("echo >> log")
    exit_record_path(run.directory, TAG).touch()
    assert run.record() is None
    assert run.run("13") == 125
    assert run.times() == 0


def test_what_is_forbidden_is_never_executed(run: Execution) -> None:
    run.write("echo >> log")
    assert forbid_execution(run.directory, TAG)
    assert forbid_execution(run.directory, TAG)  # again
    assert run.run() == 125
    assert run.times() == 0
    names = sorted(path.name for path in run.directory.iterdir())
    assert names == [exit_record_path(run.directory, TAG).name, "launch.sh"]


def test_what_has_begun_cannot_be_forbidden(run: Execution) -> None:
    run.write("exit 4")
    assert run.run() == 4
    assert not forbid_execution(run.directory, TAG)
    assert run.record() == ExitRecord(job="12", exit_code=4)
    other = Execution(run.directory.parent / "beginning")
    other.write("")
    exit_record_path(other.directory, TAG).touch()
    assert not forbid_execution(other.directory, TAG)


def test_what_has_no_directory_never_begins(run: Execution) -> None:
    assert forbid_execution(run.directory, TAG)
    assert not run.directory.exists()


def test_a_full_disk_forbids_nothing_and_leaves_no_record_behind(full_disk: Path) -> None:
    run = Execution(full_disk)
    run.write("exit 4")
    fill(full_disk)
    with pytest.raises(OSError, match="No space"):
        forbid_execution(run.directory, TAG)
    assert list(run.directory.glob(".motoko-*")) == []
    (full_disk / "big").unlink()
    assert run.run() == 4
    fill(full_disk)
    assert not forbid_execution(run.directory, TAG)  # what has begun is seen all the same


def test_a_full_disk_without_links_is_no_other(full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Execution(full_disk)
    run.write("")

    def refuse(*_: object) -> None:
        fill(full_disk)
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(OSError, match="No space"):
        forbid_execution(run.directory, TAG)
    assert list(run.directory.glob(".motoko-*")) == []


def test_a_file_system_without_links_will_do(run: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    run.write("echo >> log")
    assert forbid_execution(run.directory, TAG)
    assert run.run() == 125
    assert not list(run.directory.glob(f"{exit_record_path(run.directory, TAG).name}.*"))


def test_the_same_job_started_again_executes_it_again(run: Execution) -> None:
    """After its machine has died, with whatever was on it."""
    run.write("echo >> log; echo > started; [ -e again ] || exec sleep 1000")
    with run.start("12") as job:
        run.wait_for("started")
        os.killpg(job.pid, signal.SIGKILL)
    assert run.record() == ExitRecord(job="12")
    assert run.run("13") == 125
    (run.directory / "again").touch()
    assert run.run("12") == 0
    assert run.times() == 2
    assert run.record() == ExitRecord(job="12", starts=2, exit_code=0)


@pytest.mark.parametrize("cut", ["started", "ended 1", "ended", "/bin/bash: line 25:  814 Kil"])
@pytest.mark.parametrize("code", [0, 137])
def test_a_line_that_was_cut_off_does_not_count(run: Execution, cut: str, code: int) -> None:
    run.write(f"exit {code}")
    exit_record_path(run.directory, TAG).write_text(f"started 12\n{cut}")
    assert run.record() == ExitRecord(job="12")
    if not cut.startswith("ended"):
        assert run.run("12") == code
        assert run.record() == ExitRecord(job="12", starts=2, exit_code=code)


# ---------------------------------------------------------------------- what goes wrong


def test_a_directory_that_is_not_there(run: Execution) -> None:
    assert run.run() == 126
    assert run.record() is None


def test_a_script_that_is_not_there(run: Execution) -> None:
    run.directory.mkdir()
    assert run.run() == 127
    assert run.record() == ExitRecord(job="12", exit_code=127)


def test_output_that_cannot_be_written_is_a_failure(run: Execution) -> None:
    run.write("echo >> log")
    (run.directory / "out").mkdir()
    assert run.run() == 1
    assert run.times() == 0
    record = run.record()
    assert record is not None
    assert record.exit_code == 1


def test_nothing_is_executed_if_the_record_cannot_be_written(run: Execution) -> None:
    run.write("echo >> log")
    exit_record_path(run.directory, TAG).symlink_to("/dev/full")
    assert run.run() == 126
    assert run.times() == 0
    # It is not left behind: the next job may be luckier.
    assert run.run() == 0
    assert run.times() == 1


def test_nothing_is_executed_if_the_record_cannot_be_made(run: Execution) -> None:
    run.write("echo >> log")
    exit_record_path(run.directory, TAG).symlink_to(run.directory / "absent" / "record")
    assert run.run() == 126
    assert run.times() == 0


def test_a_disk_that_is_full_before_the_script_starts(full_disk: Path) -> None:
    run = Execution(full_disk)
    run.write("echo")
    fill(full_disk)
    assert run.run() == 126
    assert run.record() is None
    (full_disk / "big").unlink()
    assert run.run() == 0


def test_a_disk_that_the_script_fills(full_disk: Path) -> None:
    """Its end fits on the page of the record that is there already; or else nothing is told."""
    run = Execution(full_disk)
    run.write("head -c 1000000 /dev/zero; exit 4")
    assert run.run() == 4
    assert run.record() in (ExitRecord(job="12", exit_code=4), ExitRecord(job="12"))


@pytest.mark.parametrize(
    "text",
    ["", "\n", "ended 0\n", "ended", "started", "\0\xff\n", "something else\nended 3\n"],
)
def test_a_record_without_a_beginning_is_none(run: Execution, text: str) -> None:
    run.directory.mkdir()
    exit_record_path(run.directory, TAG).write_bytes(text.encode("latin-1"))
    assert run.record() is None


@pytest.mark.parametrize("word", ["", "x", "0x1", "7 8"])
def test_a_code_that_is_no_number_is_none(run: Execution, word: str) -> None:
    run.directory.mkdir()
    exit_record_path(run.directory, TAG).write_text(f"started 12\nended {word}\n")
    assert run.record() == ExitRecord(job="12")


def test_where_there_can_be_no_record_there_is_none(run: Execution) -> None:
    run.write("")
    assert read_exit_record(run.directory / "absent", TAG) is None
    assert read_exit_record(run.directory / "launch.sh", TAG) is None


def test_of_a_record_that_cannot_be_read_nobody_can_tell(run: Execution) -> None:
    run.directory.mkdir()
    record = exit_record_path(run.directory, TAG)
    record.symlink_to(record)
    with pytest.raises(OSError, match="symbolic links"):
        run.record()
    with pytest.raises(OSError, match="symbolic links"):
        forbid_execution(run.directory, TAG)


# ---------------------------------------------------------------------- signals to the job


@pytest.fixture
def waiting(run: Execution) -> Callable[[str], subprocess.Popen[str]]:
    """A job whose script ends with code 3 when it gets SIGTERM."""

    def start(before: str) -> subprocess.Popen[str]:
        run.write("trap 'echo saved >> log; exit 3' TERM\necho > started\nwhile :; do sleep 0.02; done")
        known = "motoko_stopped=1; motoko_stop() { echo > known; }"  # called when the script's id is known
        job = run.start(before=f"{known}\n{before}")
        run.wait_for("started")
        run.wait_for("known")
        return job

    return start


def test_a_trap_of_the_job_can_warn_the_script(
    run: Execution, waiting: Callable[[str], subprocess.Popen[str]]
) -> None:
    with waiting("trap 'kill -TERM \"$motoko_pid\"' USR1") as job:
        job.send_signal(signal.SIGUSR1)
        assert job.wait(TIMEOUT_S) == 3
    assert run.times() == 1
    assert run.record() == ExitRecord(job="12", exit_code=3)


def test_a_script_that_ends_during_the_trap_keeps_its_own_code(
    run: Execution, waiting: Callable[[str], subprocess.Popen[str]]
) -> None:
    slow = 'trap \'kill -TERM "$motoko_pid"; while kill -0 "$motoko_pid"; do sleep 0.02; done\' TERM'
    with waiting(slow) as job:
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(TIMEOUT_S) == 3
    assert run.record() == ExitRecord(job="12", exit_code=3)


def test_a_script_that_is_killed_during_the_trap_was_killed(
    run: Execution, waiting: Callable[[str], subprocess.Popen[str]]
) -> None:
    slow = 'trap \'kill -KILL "$motoko_pid"; while kill -0 "$motoko_pid"; do sleep 0.02; done\' TERM'
    with waiting(slow) as job:
        job.send_signal(signal.SIGTERM)
        assert job.wait(TIMEOUT_S) == 137
    assert run.record() == ExitRecord(job="12", exit_code=-9)


def test_a_job_that_ends_without_a_trap_does_not_take_the_end_with_it(
    run: Execution, waiting: Callable[[str], subprocess.Popen[str]]
) -> None:
    """The scheduler signals the whole job; its shell dies, while the script takes its time."""
    with waiting("") as job:
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(TIMEOUT_S) == -signal.SIGTERM
    assert wait_until(lambda: run.record() == ExitRecord(job="12", exit_code=3), TIMEOUT_S)


def test_signals_that_are_trapped_again_and_again_do_not_end_the_waiting(
    run: Execution, waiting: Callable[[str], subprocess.Popen[str]]
) -> None:
    with waiting("trap 'echo >> signals' USR1") as job:
        for number in range(1, 6):
            job.send_signal(signal.SIGUSR1)
            path = run.directory / "signals"
            assert wait_until(lambda n=number, p=path: p.exists() and len(p.read_text()) >= n, TIMEOUT_S)
        os.killpg(job.pid, signal.SIGTERM)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        'it\'s "quoted"',
        "$(touch pwned)`touch pwned`",
        "-rf",
        "a\nstarted 99\nended 0",
        "é*?[x]",
    ],
)
def test_strange_names_are_inert(tmp_path: Path, name: str) -> None:
    run = Execution(tmp_path / name)
    run.write("echo >> log; exit 5")
    assert run.run(job="array_7.4") == 5
    assert run.times() == 1
    assert run.record() == ExitRecord(job="array_7.4", exit_code=5)
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("pwned").exists()
