"""Jobs of the bash generator survive their launcher, and are followed by the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from motoko_core.interfaces import Ended, LaunchTask
from motoko_plugins.generators.bash import EXIT_CODE_FILE, BashGenerator, BashOptions, read_exit_code
from tests.launching import release
from tests.plugins.conftest import make_task, next_ends

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
    assert await generator.adopt([(task, handles[known])])
    assert await generator.adopt([(task, handles[known])])
    assert generator.room() == 3
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=3)]
    assert generator.room() == 4

    # A third launcher, which comes when all is over, learns the same.
    late = BashGenerator(BashOptions(slots=1))
    assert await late.adopt([(task, handle)])
    assert await next_ends(late, 1) == [Ended(tag=task.tag, exit_code=3)]


@pytest.mark.parametrize("known", ["pid, clock was set", "nothing"])
async def test_a_job_that_is_just_beginning_is_found(
    generator: BashGenerator,
    orphan: tuple[LaunchTask, dict[str, Any]],
    fifo: Path,
    known: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, handle = orphan
    times = iter(range(3))
    cmdline = psutil.Process.cmdline

    def unknown_at_first(process: psutil.Process) -> list[str]:
        if process.pid == handle["pid"] and next(times, None) is not None:
            return []
        return cmdline(process)

    monkeypatch.setattr(psutil.Process, "cmdline", unknown_at_first)
    assert await generator.adopt([(task, handle | {"start": 0.0} if known != "nothing" else None)])
    assert next(times, None) is None
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=3)]


async def test_an_adopted_job_that_is_killed_with_its_wrapper_is_lost(
    generator: BashGenerator, orphan: tuple[LaunchTask, dict[str, Any]]
) -> None:
    task, handle = orphan
    assert await generator.adopt([(task, handle)])
    os.killpg(handle["pid"], signal.SIGKILL)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=None, reason="LOST")]


async def test_an_adopted_job_can_be_cancelled(
    generator: BashGenerator, orphan: tuple[LaunchTask, dict[str, Any]]
) -> None:
    task, handle = orphan
    assert await generator.adopt([(task, handle)])
    await generator.cancel([task.tag], grace_s=0.2)
    (end,) = await next_ends(generator, 1)
    assert (end.tag, end.reason) == (task.tag, "CANCELLED")


async def test_what_ended_while_no_launcher_was_there_is_read_from_the_run_directory(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    (task.directory / EXIT_CODE_FILE).write_text(f"Killed\n137 {task.tag}\n")
    assert await generator.adopt([(task, None)])
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-9, reason="SIGNAL")]


async def test_a_stranger_with_the_same_pid_and_an_earlier_attempt_are_not_adopted(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    (task.directory / EXIT_CODE_FILE).write_text("0 another attempt\n")
    assert not await generator.adopt([(task, None)])
    for pid in os.getpid(), 2**22 + 1:
        assert await generator.adopt([(task, {"pid": pid, "start": 1.0})])
        (end,) = await next_ends(generator, 1)
        assert end.reason == "LOST"
    assert generator.room() == 4


async def test_closing_leaves_the_jobs_to_another_generator(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"read < {fifo}; exit 6")
    first = BashGenerator(BashOptions(slots=1))
    (answer,) = await first.submit([task])
    await first.close()
    assert await generator.adopt([(task, answer.handle)])
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
