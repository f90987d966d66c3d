"""Jobs of the bash generator survive their launcher and their spawner, and are followed by the next one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from motoko_core.daemons import is_gone, wait_until
from motoko_core.interfaces import Ended, LaunchTask, exit_record_path
from motoko_plugins.generators import _processes, bash
from motoko_plugins.generators._processes import processes_of, signal_process
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S
from tests.disks import fill, full_disk
from tests.launching import read_line, release
from tests.plugins.conftest import make_task, next_ends

__all__ = ["full_disk"]

LAUNCHER = """
import asyncio, json, sys
from pathlib import Path
from motoko_core.daemons import is_gone, wait_until
from motoko_core.interfaces import LaunchTask
from motoko_plugins.generators.bash import BashGenerator, BashOptions

async def main():
    tasks = [LaunchTask(**(v | {"directory": Path(v["directory"])})) for v in json.loads(sys.argv[1])]
    await BashGenerator(BashOptions(slots=1)).submit(tasks)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def as_json(*tasks: LaunchTask) -> str:
    fields = ("tag", "task", "run_id", "run_name", "script")
    return json.dumps(
        [{name: getattr(t, name) for name in fields} | {"directory": str(t.directory)} for t in tasks]
    )


async def launch_and_kill(*tasks: LaunchTask, fifo: Path) -> None:
    """Have another launcher start the tasks; kill it with -9 when the first one says something."""
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, as_json(*tasks)]) as launcher:  # noqa: ASYNC220
        await read_line(fifo)
        launcher.kill()


def spawner_of(task: LaunchTask) -> psutil.Process:
    first, *_ = exit_record_path(task.directory, task.tag).read_text().splitlines()
    return psutil.Process(int(first.rpartition(":")[2]))


@pytest.fixture
async def orphan(tmp_path: Path, fifo: Path) -> AsyncIterator[LaunchTask]:
    task = make_task(tmp_path, f"echo > {fifo}; read < {fifo}; exit 3")
    await launch_and_kill(task, fifo=fifo)
    yield task
    for pid in processes_of([task.tag]).get(task.tag, ()):
        signal_process(pid, signal.SIGKILL)


async def test_a_job_survives_its_launcher_and_is_followed_by_the_next(
    watching: None, generator: BashGenerator, orphan: LaunchTask, fifo: Path
) -> None:
    assert await generator.adopt([(orphan, None)]) == {orphan.tag}
    assert await generator.adopt([(orphan, {})]) == {orphan.tag}
    assert generator.room() == 3
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=orphan.tag, exit_code=3)]

    # A third launcher, which comes when all is over, learns the same.
    late = BashGenerator(BashOptions(slots=1))
    assert await late.adopt([(orphan, {})])
    assert await next_ends(late, 1) == [Ended(tag=orphan.tag, exit_code=3)]


async def test_a_job_that_waited_when_its_launcher_died_never_starts(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    first = make_task(tmp_path, f"echo > {fifo}; read < {fifo}", 1)
    second = make_task(tmp_path, "touch executed", 2)
    await launch_and_kill(first, second, fifo=fifo)
    spawner = spawner_of(first)
    assert await generator.adopt([(first, {}), (second, {})]) == {first.tag}
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=first.tag, exit_code=0)]
    assert await asyncio.to_thread(wait_until, lambda: is_gone(spawner), TIMEOUT_S)
    assert not (second.directory / "executed").exists()
    # Not even if its old spawner, or another launcher, came back to it.
    await generator.submit([second])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "SUBMIT"
    assert not (second.directory / "executed").exists()


async def test_a_spawner_without_launcher_and_job_ends(orphan: LaunchTask, fifo: Path) -> None:
    spawner = spawner_of(orphan)
    await release(fifo)
    assert await asyncio.to_thread(wait_until, lambda: is_gone(spawner), TIMEOUT_S)


async def test_an_adopted_job_that_is_killed_tells_the_signal(
    generator: BashGenerator, orphan: LaunchTask
) -> None:
    assert await generator.adopt([(orphan, {})])
    for pid in processes_of([orphan.tag])[orphan.tag]:
        signal_process(pid, signal.SIGKILL)
    assert await next_ends(generator, 1) == [Ended(tag=orphan.tag, exit_code=-9)]


async def test_an_adopted_job_whose_spawner_was_killed_is_lost_when_it_ends(
    generator: BashGenerator, orphan: LaunchTask, fifo: Path
) -> None:
    spawner_of(orphan).kill()
    assert await generator.adopt([(orphan, {})])
    await release(fifo)
    (end,) = await next_ends(generator, 1)
    assert (end.tag, end.exit_code, end.reason) == (orphan.tag, None, "LOST")


async def test_a_job_that_vanished_with_its_spawner_is_lost(
    generator: BashGenerator, orphan: LaunchTask
) -> None:
    spawner_of(orphan).kill()
    for pid in processes_of([orphan.tag])[orphan.tag]:
        signal_process(pid, signal.SIGKILL)
    assert await generator.adopt([(orphan, {})])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "LOST"


async def test_an_adopted_job_can_be_cancelled(generator: BashGenerator, orphan: LaunchTask) -> None:
    assert await generator.adopt([(orphan, {})])
    await generator.cancel([orphan.tag], grace_s=0.2)
    (end,) = await next_ends(generator, 1)
    assert (end.tag, end.reason) == (orphan.tag, "CANCELLED")


async def test_what_ended_while_no_launcher_was_there_is_read_from_the_run_directory(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    exit_record_path(task.directory, task.tag).write_text("started elsewhere:1\nended -9\n")
    assert await generator.adopt([(task, {})])
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-9)]


async def test_a_record_of_a_process_that_is_no_spawner_any_more_is_of_a_lost_job(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "")
    record = exit_record_path(task.directory, task.tag)
    record.write_text(f"started {socket.gethostname()}:{os.getpid()}\n")
    assert await generator.adopt([(task, {})])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "LOST"


async def as_if(task: LaunchTask, fifo: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Kill a job with its spawner, and change its record: host, boot, start, process id."""
    record = exit_record_path(task.directory, task.tag)
    spawner = spawner_of(task)
    for process in (spawner, *spawner.children(recursive=True)):
        process.kill()
    assert await asyncio.to_thread(wait_until, lambda: is_gone(spawner), TIMEOUT_S)
    place, _, pid = record.read_text().strip().removeprefix("started ").rpartition(":")
    host, boot, start, pid = change([*place.split("/"), pid])
    record.write_text(f"started {host}/{boot}/{start}:{pid}\n")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda words: ["renamed", *words[1:]], id="the host was renamed"),
        pytest.param(lambda words: [words[0], "another", *words[2:]], id="the machine was started again"),
    ],
)
async def test_a_job_of_this_machine_is_known_whatever_its_name(
    generator: BashGenerator, orphan: LaunchTask, fifo: Path, change: Callable[[list[str]], list[str]]
) -> None:
    await as_if(orphan, fifo, change)
    assert await generator.adopt([(orphan, {})])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "LOST"


async def test_a_spawner_in_another_container_of_this_machine_is_at_work(
    generator: BashGenerator,
    orphan: LaunchTask,
    fifo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its processes cannot be seen from here."""
    monkeypatch.setattr(bash, "processes_of", lambda tags: {})
    monkeypatch.setattr(bash, "is_spawner", lambda job: False)
    assert await generator.adopt([(orphan, {})])
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=orphan.tag, exit_code=3)]


async def test_a_spawner_that_another_one_has_the_number_of_is_gone(
    generator: BashGenerator, tmp_path: Path, orphan: LaunchTask, fifo: Path
) -> None:
    """A container that is made anew gives the same process ids again."""
    other = make_task(tmp_path, "", 2)
    record = exit_record_path(orphan.directory, orphan.tag).read_text()
    place, _, pid = record.strip().rpartition(":")
    earlier = f"{place.rpartition('/')[0]}/1:{pid}\n"
    exit_record_path(other.directory, other.tag).write_text(earlier)
    assert await generator.adopt([(other, {})])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "LOST"


async def test_a_job_of_another_machine_is_waited_for(
    generator: BashGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bash, "_POLL_ELSEWHERE_S", 0.01)
    task = make_task(tmp_path, "")
    record = exit_record_path(task.directory, task.tag)
    record.write_text("started elsewhere:1\n")
    assert await generator.adopt([(task, {})])
    with record.open("a") as file:
        file.write("ended 4\n")
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=4)]


# ---------------------------------------------------------------------- directories out of reach


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bash, "_AGAIN_S", 0.01)


async def test_jobs_of_which_nobody_can_tell_whether_they_have_begun_are_followed(
    impatient: None,
    generator: BashGenerator,
    full_disk: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    unclear = make_task(full_disk, "exit 3", 1)
    waiting = make_task(tmp_path, "", 2)
    fill(full_disk)
    assert await generator.adopt([(unclear, {}), (waiting, {})]) == {unclear.tag}
    assert "the run directory of add.1 is out of reach" in caplog.text
    assert str(full_disk) in caplog.text
    # When it is within reach again, what has not begun begins.
    (full_disk / "big").unlink()
    assert await next_ends(generator, 1) == [Ended(tag=unclear.tag, exit_code=3)]


async def test_a_job_of_which_nobody_can_tell_can_be_cancelled(
    impatient: None, generator: BashGenerator, full_disk: Path
) -> None:
    unclear = make_task(full_disk, "touch executed")
    fill(full_disk)
    assert await generator.adopt([(unclear, {})])
    await generator.cancel([unclear.tag])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "CANCELLED"


async def test_a_record_that_cannot_be_read_is_no_end(
    impatient: None,
    generator: BashGenerator,
    orphan: LaunchTask,
    fifo: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = exit_record_path(orphan.directory, orphan.tag)
    kept = record.rename(record.with_name("kept"))
    record.symlink_to(record)
    assert await generator.adopt([(orphan, {})])
    while "nothing can be found out about add.1" not in caplog.text:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await release(fifo)
    kept.rename(record)
    assert await next_ends(generator, 1) == [Ended(tag=orphan.tag, exit_code=3)]


async def test_more_jobs_than_files_can_be_open_are_followed_all_the_same(
    generator: BashGenerator, orphan: LaunchTask, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_processes, "_SHARE", 0.0)
    assert await generator.adopt([(orphan, {})])
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=orphan.tag, exit_code=3)]


async def test_an_error_in_following_is_told(
    generator: BashGenerator, orphan: LaunchTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(pid: int) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(bash, "end_of", breaks)
    assert await generator.adopt([(orphan, {})])
    with pytest.raises(RuntimeError, match="a mistake"):
        await next_ends(generator, 1)


async def test_closing_leaves_the_jobs_to_another_generator(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"echo > {fifo}; read < {fifo}; exit 6")
    first = BashGenerator(BashOptions(slots=1))
    (answer,) = await first.submit([task])
    await read_line(fifo)
    await first.close()
    assert await generator.adopt([(task, answer.handle)])
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=6)]


async def test_when_the_spawner_dies_its_jobs_go_on_and_waiting_ones_get_another(
    generator: BashGenerator, tmp_path: Path, fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = f"echo > {fifo}; read < {fifo}; touch done; exit 3"
    first = make_task(tmp_path, script, 1, nproc=4)
    second = make_task(tmp_path, "test -e ../run-1/done", 2)
    await generator.submit([first, second])
    await read_line(fifo)
    spawner_of(first).kill()
    # (The next one knows of no job, and gives the processors away.)
    (early,) = await next_ends(generator, 1)
    assert (early.tag, early.exit_code) == (second.tag, 1)
    await release(fifo)
    (end,) = await next_ends(generator, 1)
    assert (end.tag, end.exit_code, end.reason) == (first.tag, None, "LOST")
    assert "the spawner has died" in caplog.text
    third = make_task(tmp_path, "exit 2", 3)
    await generator.submit([third])
    assert await next_ends(generator, 1) == [Ended(tag=third.tag, exit_code=2)]


async def test_what_a_job_has_left_in_a_session_of_its_own_is_not_the_job(
    watching: None, generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"setsid sleep 1000 & echo $! > {fifo}; read < {fifo}; exit 3")
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, as_json(task)]) as launcher:  # noqa: ASYNC220
        child = int(await read_line(fifo))
        launcher.kill()
    assert await generator.adopt([(task, None)]) == {task.tag}
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=3)]
    signal_process(child, signal.SIGKILL)
