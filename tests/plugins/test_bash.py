"""The bash generator with real processes. Nothing waits for time: jobs wait for fifos, tests for ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Ended, LaunchTask
from motoko_plugins.generators import bash
from motoko_plugins.generators.bash import EXIT_CODE_FILE, BashGenerator, BashOptions, read_exit_code

PATIENCE_S = 30


def make_task(root: Path, script: str, number: int = 1, **changes: Any) -> LaunchTask:
    directory = root / f"run-{number}"
    directory.mkdir(exist_ok=True)
    (directory / "launch.sh").write_text(script)
    values: dict[str, Any] = {
        "tag": f"{root}:{number}",
        "task": f"add.{number}",
        "run_id": number,
        "run_name": "wf",
        "directory": directory,
        "script": "launch.sh",
    }
    return LaunchTask(**(values | changes))


async def next_ends(generator: BashGenerator, count: int) -> list[Ended]:
    async def collect() -> list[Ended]:
        found = []
        async for end in generator.ended():
            found.append(end)
            if len(found) == count:
                break
        return found

    return await asyncio.wait_for(collect(), PATIENCE_S) if count else []


async def run(generator: BashGenerator, task: LaunchTask) -> Ended:
    (answer,) = await generator.submit([task])
    assert answer.error is None
    (end,) = await next_ends(generator, 1)
    assert end.tag == task.tag
    return end


async def read_line(fifo: Path) -> str:
    """Wait for a job to say something."""
    return await asyncio.wait_for(asyncio.to_thread(fifo.read_text), PATIENCE_S)


async def release(fifo: Path) -> None:
    """Let a job go on that reads the fifo."""
    await asyncio.wait_for(asyncio.to_thread(fifo.write_text, "go\n"), PATIENCE_S)


@pytest.fixture(params=["pidfd", "thread"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "thread":

        def unsupported(pid: int, flags: int = 0) -> int:
            raise OSError("as on an old kernel")

        monkeypatch.setattr(os, "pidfd_open", unsupported)


@pytest.fixture
async def generator(watching: None) -> AsyncIterator[BashGenerator]:
    generator = BashGenerator(BashOptions(slots=4))
    descriptors = psutil.Process().num_fds()
    yield generator
    await generator.close()
    assert psutil.Process().num_fds() == descriptors
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


# --------------------------------------------------------------------------- how a job ends


@pytest.mark.parametrize(
    ("script", "exit_code", "reason"),
    [
        ("true", 0, None),
        ("false", 1, None),
        ("exit 3", 3, None),
        ("exit 137", 137, None),
        ("kill -9 $$", -9, "SIGNAL"),
        ("kill -SEGV $$", -11, "SIGNAL"),
        ("kill -9 0", -9, "SIGNAL"),  # the whole group, wrapper included
        ("bash -c 'kill -9 $$'", 137, None),  # the last command was killed, as shells say it
        (f"rm {EXIT_CODE_FILE}; exit 4", 4, None),
        ("kill -9 $PPID; sleep 1000", -9, "SIGNAL"),  # the wrapper alone: the script goes as well
    ],
)
async def test_the_end_tells_the_exit_code_or_the_signal(
    generator: BashGenerator, tmp_path: Path, script: str, exit_code: int, reason: str | None
) -> None:
    task = make_task(tmp_path, script)
    assert await run(generator, task) == Ended(tag=task.tag, exit_code=exit_code, reason=reason)
    assert generator.room() == 4


async def test_output_goes_to_files_that_a_new_attempt_starts_afresh(
    generator: BashGenerator, tmp_path: Path
) -> None:
    first = make_task(tmp_path, "cat; pwd; echo much more; echo wrong >&2", run_name="a/b")
    await run(generator, first)
    assert (first.directory / "a_b.o1").read_text() == f"{first.directory}\nmuch more\n"
    assert generator.stderr_path(first).read_text() == "wrong\n"
    assert generator.stderr_path(first).name == "a_b.e1"

    second = make_task(tmp_path, "echo once", run_name="a/b", tag="second attempt")
    await run(generator, second)
    assert generator.stdout_path(second).read_text() == "once\n"
    assert generator.stderr_path(second).read_text() == ""


async def test_the_job_is_alone_in_its_session_with_default_signals(
    generator: BashGenerator, tmp_path: Path
) -> None:
    # SIGPIPE, which Python ignores, ends `yes`: 141 instead of an error message.
    script = 'ps -o sid= -p $$; echo $PPID; yes | head -1 >/dev/null; echo "${PIPESTATUS[0]}"'
    task = make_task(tmp_path, script)
    await run(generator, task)
    session, wrapper, status = generator.stdout_path(task).read_text().split()
    assert session == wrapper
    assert status == "141"


async def test_the_job_holds_none_of_our_descriptors(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    task = make_task(tmp_path, "ls /proc/$$/fd")
    generator = BashGenerator(BashOptions(slots=1))
    await run(generator, task)
    descriptors = generator.stdout_path(task).read_text().split()
    assert descriptors == ["0", "1", "2", "255"]  # bash holds its script at 255
    os.close(reader)
    os.close(writer)


async def test_standard_output_of_the_launcher_can_be_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = BashGenerator(BashOptions(slots=1, stdout=True))
    task = make_task(tmp_path, "echo here; echo there >&2")
    await run(generator, task)
    assert capfd.readouterr() == ("here\n", "there\n")
    assert not generator.stdout_path(task).exists()


async def test_the_programs_beside_our_python_are_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho ours\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    generator = BashGenerator(BashOptions(slots=1))
    task = make_task(tmp_path, "python")
    await run(generator, task)
    assert generator.stdout_path(task).read_text() == "ours\n"
    monkeypatch.setenv("PATH", f"/usr/bin:{tmp_path}")
    assert bash.job_environment()["PATH"] == f"/usr/bin:{tmp_path}"


async def test_a_job_that_cannot_start_is_answered_and_leaves_the_others_alone(
    generator: BashGenerator, tmp_path: Path
) -> None:
    bad = [
        make_task(tmp_path, "true", 1, directory=tmp_path / "absent"),
        make_task(tmp_path, "true", 2, tag="zero\0byte"),
        make_task(tmp_path, "true", 3, run_name="x" * 300),
    ]
    good = make_task(tmp_path, "true", 4)
    *failed, started = await generator.submit([*bad, good])
    assert [answer.tag for answer in failed] == [task.tag for task in bad]
    for answer, task in zip(failed, bad, strict=True):
        assert answer.handle is None
        assert answer.error is not None
        assert f"cannot start {task.task}" in answer.error
    assert started.handle is not None
    assert await next_ends(generator, 1) == [Ended(tag=good.tag, exit_code=0)]


# --------------------------------------------------------------------------- slots


async def test_jobs_run_at_the_same_time(generator: BashGenerator, tmp_path: Path, fifo: Path) -> None:
    writer = make_task(tmp_path, f"echo hello > {fifo}", 1)
    reader = make_task(tmp_path, f"read line < {fifo}; test $line = hello", 2)
    await generator.submit([writer, reader])
    ends = await next_ends(generator, 2)
    assert {end.tag: end.exit_code for end in ends} == {writer.tag: 0, reader.tag: 0}


async def test_200_jobs_all_end_and_never_more_than_the_slots_run(
    generator: BashGenerator, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    tasks = [make_task(tmp_path, f"echo 1 >> {log}; true; echo -1 >> {log}", n) for n in range(200)]
    answers = await generator.submit(tasks)
    assert [answer.tag for answer in answers] == [task.tag for task in tasks]
    assert all(answer.handle is not None for answer in answers)
    ends = await next_ends(generator, 200)
    assert {(end.tag, end.exit_code) for end in ends} == {(task.tag, 0) for task in tasks}
    assert generator.room() == 4
    at_work = most = 0
    for line in log.read_text().split():
        at_work += int(line)
        most = max(most, at_work)
    assert 1 <= most <= 4


async def test_200_jobs_run_side_by_side_if_there_are_slots(tmp_path: Path, fifo: Path) -> None:
    started_fifo = tmp_path / "started"
    os.mkfifo(started_fifo)
    started, go = (os.open(path, os.O_RDWR) for path in (started_fifo, fifo))
    generator = BashGenerator(BashOptions(slots=200))
    tasks = [make_task(tmp_path, f"echo > {started_fifo}; read < {fifo}", n) for n in range(200)]
    await generator.submit(tasks)
    assert generator.room() == 0
    # Nobody goes on before everybody has started.
    for _ in tasks:
        await asyncio.wait_for(asyncio.to_thread(os.read, started, 1), PATIENCE_S)
    os.write(go, b"\n" * 200)
    ends = await next_ends(generator, 200)
    assert {(end.tag, end.exit_code) for end in ends} == {(task.tag, 0) for task in tasks}
    assert generator.room() == 200
    os.close(started)
    os.close(go)


@pytest.mark.parametrize("nproc", [4, 64])
async def test_a_wide_job_runs_alone_and_is_not_overtaken(
    generator: BashGenerator, tmp_path: Path, fifo: Path, nproc: int
) -> None:
    narrow = make_task(tmp_path, f"read < {fifo}; touch done", 1)
    wide = make_task(tmp_path, "test -e ../run-1/done && touch done", 2, nproc=nproc)
    late = make_task(tmp_path, "test -e ../run-2/done", 3)
    await generator.submit([narrow])
    assert generator.room() == 3
    await generator.submit([wide, late])
    assert generator.room() == 0
    await release(fifo)
    ends = await next_ends(generator, 3)
    assert [(end.tag, end.exit_code) for end in ends] == [(t.tag, 0) for t in (narrow, wide, late)]
    assert generator.room() == 4


async def test_a_waiting_job_that_cannot_start_is_lost_and_the_next_one_starts(
    generator: BashGenerator, tmp_path: Path, fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = make_task(tmp_path, f"read < {fifo}", 1, nproc=4)
    bad = make_task(tmp_path, "true", 2, directory=tmp_path / "absent")
    good = make_task(tmp_path, "true", 3)
    await generator.submit([wide, bad, good])
    await release(fifo)
    ends = await next_ends(generator, 3)
    assert [(end.tag, end.exit_code, end.reason) for end in ends] == [
        (wide.tag, 0, None),
        (bad.tag, None, "LOST"),
        (good.tag, 0, None),
    ]
    assert "cannot start add.2" in caplog.text


# --------------------------------------------------------------------------- cancelling


async def test_cancelling_is_polite_first(generator: BashGenerator, tmp_path: Path, fifo: Path) -> None:
    script = f"trap 'echo tidy; exit 5' TERM; sleep 1000 & echo ready > {fifo}; wait"
    task, other = make_task(tmp_path, script, 1), make_task(tmp_path, f"read < {fifo}", 2)
    await generator.submit([task])
    await read_line(fifo)
    await generator.submit([other])
    await generator.cancel([task.tag, "unknown"], grace_s=PATIENCE_S)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=5, reason="CANCELLED")]
    assert generator.stdout_path(task).read_text() == "tidy\n"
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=other.tag, exit_code=0)]


async def test_a_job_that_does_not_listen_is_killed_with_its_children(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    script = f"exec 5> {fifo}; trap '' TERM; sleep 1000 & echo ready >&5; wait"
    task = make_task(tmp_path, script)
    await generator.submit([task])
    with await asyncio.to_thread(fifo.open) as held_by_all:
        assert await asyncio.to_thread(held_by_all.readline) == "ready\n"
        await generator.cancel([task.tag], grace_s=0.05)
        assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-9, reason="CANCELLED")]
        assert await asyncio.wait_for(asyncio.to_thread(held_by_all.read), PATIENCE_S) == ""


async def test_a_child_may_tidy_up_after_its_shell_has_gone(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    child = f"trap 'echo tidy > tidied; exit' TERM; sleep 1000 & echo ready > {fifo}; wait"
    (tmp_path / "child.sh").write_text(child)
    task = make_task(tmp_path, "bash ../child.sh; true")
    await generator.submit([task])
    await read_line(fifo)
    await generator.cancel([task.tag], grace_s=PATIENCE_S)
    assert (task.directory / "tidied").read_text() == "tidy\n"
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-15, reason="CANCELLED")]


async def test_a_waiting_job_is_cancelled_without_having_started(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    wide = make_task(tmp_path, f"read < {fifo}", 1, nproc=4)
    waiting = make_task(tmp_path, "touch started", 2)
    await generator.submit([wide, waiting])
    await generator.cancel([waiting.tag])
    assert await next_ends(generator, 1) == [Ended(tag=waiting.tag, exit_code=None, reason="CANCELLED")]
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=wide.tag, exit_code=0)]
    assert not (waiting.directory / "started").exists()


# --------------------------------------------------------------------------- surviving the launcher

LAUNCHER = """
import asyncio, json, sys
from pathlib import Path
from motoko_core.interfaces import LaunchTask
from motoko_plugins.generators.bash import BashGenerator

async def main():
    values = json.loads(sys.argv[1])
    task = LaunchTask(**(values | {"directory": Path(values["directory"])}))
    (answer,) = await BashGenerator().submit([task])
    print(json.dumps(dict(answer.handle)), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def launch_and_kill(task: LaunchTask) -> dict[str, Any]:
    """Have another launcher start the task; kill it with -9; return the handle."""
    fields = ("tag", "task", "run_id", "run_name", "script")
    values = {name: getattr(task, name) for name in fields} | {"directory": str(task.directory)}
    command = [sys.executable, "-c", LAUNCHER, json.dumps(values)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        handle: dict[str, Any] = json.loads(launcher.stdout.readline())
        launcher.kill()
    return handle


@pytest.fixture
def orphan(tmp_path: Path, fifo: Path) -> Iterator[tuple[LaunchTask, dict[str, Any]]]:
    task = make_task(tmp_path, f"read < {fifo}; exit 3")
    handle = launch_and_kill(task)
    yield task, handle
    with suppress(ProcessLookupError):
        os.killpg(handle["pid"], signal.SIGKILL)


@pytest.mark.parametrize("known", ["pid and start", "pid, clock was set", "nothing", "queued"])
async def test_a_job_survives_its_launcher_and_is_followed_by_the_next(
    generator: BashGenerator, orphan: tuple[LaunchTask, dict[str, Any]], fifo: Path, known: str
) -> None:
    task, handle = orphan
    handles = {
        "pid and start": handle,
        "pid, clock was set": handle | {"start": handle["start"] + 3600},
        "nothing": None,
        "queued": {"pid": None, "start": None},
    }
    assert psutil.Process(handle["pid"]).create_time() == pytest.approx(handle["start"], abs=0.01)
    assert await generator.adopt(task, handles[known])
    assert await generator.adopt(task, handles[known])
    assert generator.room() == 3
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=3)]
    assert generator.room() == 4

    # A third launcher, which comes when all is over, learns the same.
    late = BashGenerator(BashOptions(slots=1))
    assert await late.adopt(task, handle)
    assert await next_ends(late, 1) == [Ended(tag=task.tag, exit_code=3)]


async def test_an_adopted_job_that_is_killed_with_its_wrapper_is_lost(
    generator: BashGenerator, orphan: tuple[LaunchTask, dict[str, Any]]
) -> None:
    task, handle = orphan
    assert await generator.adopt(task, handle)
    os.killpg(handle["pid"], signal.SIGKILL)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=None, reason="LOST")]


async def test_an_adopted_job_can_be_cancelled(
    generator: BashGenerator, orphan: tuple[LaunchTask, dict[str, Any]]
) -> None:
    task, handle = orphan
    assert await generator.adopt(task, handle)
    await generator.cancel([task.tag], grace_s=0.2)
    (end,) = await next_ends(generator, 1)
    assert (end.tag, end.reason) == (task.tag, "CANCELLED")


async def test_what_ended_while_no_launcher_was_there_is_read_from_the_run_directory(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    (task.directory / EXIT_CODE_FILE).write_text(f"Killed\n137 {task.tag}\n")
    assert await generator.adopt(task, None)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-9, reason="SIGNAL")]


async def test_a_stranger_with_the_same_pid_and_an_earlier_attempt_are_not_adopted(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    (task.directory / EXIT_CODE_FILE).write_text("0 another attempt\n")
    assert not await generator.adopt(task, {"pid": os.getpid(), "start": 1.0})
    assert not await generator.adopt(task, {"pid": 2**22 + 1, "start": 1.0})
    assert not await generator.adopt(task, None)
    assert generator.room() == 4


async def test_closing_leaves_the_jobs_to_another_generator(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"read < {fifo}; exit 6")
    first = BashGenerator(BashOptions(slots=1))
    (answer,) = await first.submit([task])
    await first.close()
    assert await generator.adopt(task, answer.handle)
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=6)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0 t\n", 0),
        ("200 t\n", 200),
        ("Killed\n137 t\n", -9),
        ("sh: line 4: 12 Terminated (exec bash)\n143 t\n", -15),
        ("something else\n2 t\n", 2),
        ("", None),
        ("\n", None),
        ("0 t", None),
        ("0\n", None),
        ("0 other\n", None),
        ("x t\n", None),
    ],
)
def test_only_a_complete_exit_code_of_this_attempt_counts(
    tmp_path: Path, text: str, code: int | None
) -> None:
    assert read_exit_code(tmp_path, "t") is None
    (tmp_path / EXIT_CODE_FILE).write_text(text)
    assert read_exit_code(tmp_path, "t") == code


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize("form", ["slots=4", "--slots=4", "--slots 4", "slots 4", " slots = 4 "])
def test_options_have_several_forms(form: str) -> None:
    assert BashOptions.from_strings([form]) == BashOptions(slots=4)


def test_flags_are_options_of_blackdynamite() -> None:
    options = BashOptions.from_strings(["--stdout", "--stop-on-error"])
    assert (options.stdout, options.stop_on_error) == (True, True)
    assert BashOptions.from_strings(["stdout=False", "stop_on_error=true"]).stdout is False
    assert BashOptions.from_strings([]) == BashOptions()


def test_as_many_slots_as_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    assert BashOptions().slots == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert BashOptions().slots == 7


def test_an_unknown_option_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown option '--slot=4'\n.*Did you mean 'slots'"):
        BashOptions.from_strings(["--slot=4"])
    with pytest.raises(ConfigError, match="unknown option ''"):
        BashOptions.from_strings([""])


@pytest.mark.parametrize(
    "option", ["slots", "slots=0", "slots=-1", "slots=many", "slots=1.5", "stdout=maybe"]
)
def test_a_wrong_value_is_an_error(option: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a positive whole number|neither true nor false"):
        BashOptions.from_strings([option])
    with pytest.raises(ConfigError, match="slots = True"):
        BashOptions(slots=True)


def test_the_plugin_provides_bash() -> None:
    assert bash.motoko_generators() == {"bash": BashGenerator}
    assert BashGenerator.Options is BashOptions
