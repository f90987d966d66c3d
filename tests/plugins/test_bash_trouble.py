"""The bash generator when spawners die, directories disappear and descriptors run out at a bad moment."""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from motoko_core.interfaces import Ended, LaunchTask, exit_record_path
from motoko_plugins.generators import _spawner_client, bash
from motoko_plugins.generators._processes import processes_of, signal_process
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S
from tests.launching import read_line, release, soon
from tests.plugins.conftest import make_task, next_ends
from tests.plugins.test_bash_recovery import launch_and_kill, spawner_of
from tests.processes import is_over


@pytest.fixture
def watching() -> None:
    """Either way of following an adopted job will do."""


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(psutil.Process().open_files()) + 60, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def cancel_while_the_spawner_dies(
    generator: BashGenerator, tasks: Sequence[LaunchTask], spawner: psutil.Process
) -> None:
    spawner.suspend()
    cancelling = asyncio.create_task(generator.cancel([task.tag for task in tasks], grace_s=TIMEOUT_S))
    await asyncio.sleep(0)
    spawner.kill()
    await soon(cancelling)


async def test_a_spawner_that_is_stopped_does_not_hold_up_a_cancellation(
    generator: BashGenerator, tmp_path: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawner_client, "_ANSWER_S", 0.1)
    monkeypatch.setattr(bash, "_LAST_WORDS_S", 0.1)
    wide = make_task(tmp_path, f"echo > {fifo}; read < {fifo}", 1, nproc=4)
    doomed = make_task(tmp_path, "touch started", 2)
    await generator.submit([wide, doomed])
    await read_line(fifo)
    spawner = spawner_of(wide)
    spawner.suspend()
    await soon(generator.cancel([doomed.tag]))
    await release(fifo)
    spawner.resume()
    ends = await next_ends(generator, 2)
    assert {(end.tag, end.reason) for end in ends} == {(wide.tag, None), (doomed.tag, "CANCELLED")}
    assert not (doomed.directory / "started").exists()


async def test_a_waiting_job_stays_cancelled_when_the_spawner_dies(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    wide = make_task(tmp_path, f"echo > {fifo}; read < {fifo}", 1, nproc=4)
    doomed = make_task(tmp_path, "touch started", 2)
    fine = make_task(tmp_path, "true", 3)
    await generator.submit([wide, doomed, fine])
    await read_line(fifo)
    await cancel_while_the_spawner_dies(generator, [doomed], spawner_of(wide))
    ends = await next_ends(generator, 2)
    assert Ended(tag=doomed.tag, exit_code=None, reason="CANCELLED") in ends
    assert Ended(tag=fine.tag, exit_code=0) in ends
    assert not (doomed.directory / "started").exists()
    await release(fifo)
    await next_ends(generator, 1)


async def test_a_job_at_work_ends_as_cancelled_when_the_spawner_dies(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"echo > {fifo}; sleep 1000")
    await generator.submit([task])
    await read_line(fifo)
    await cancel_while_the_spawner_dies(generator, [task], spawner_of(task))
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=None, reason="CANCELLED")]


async def test_jobs_submitted_while_the_spawner_dies_run_once(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    first = make_task(tmp_path, f"echo > {fifo}; read < {fifo}", 1, nproc=4)
    tasks = [make_task(tmp_path, "echo executed >> ../executed", number) for number in range(2, 12)]
    await generator.submit([first, *tasks[:5]])
    await read_line(fifo)
    spawner_of(first).kill()
    for task in tasks[5:]:
        await generator.submit([task])
        await asyncio.sleep(0)
    assert {(end.exit_code, end.message) for end in await next_ends(generator, 10)} == {(0, "")}
    assert (tmp_path / "executed").read_text() == "executed\n" * 10
    await release(fifo)
    await next_ends(generator, 1)


async def test_a_job_that_ended_before_it_could_be_cancelled_tells_how(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"echo > {fifo}; read < {fifo}")
    await generator.submit([task])
    await read_line(fifo)
    fifo.write_text("go\n")  # noqa: ASYNC240 - nothing else may be heard meanwhile
    record = exit_record_path(task.directory, task.tag)
    while "ended" not in record.read_text():
        pass  # as long as we are busy, the spawner is not heard
    await generator.cancel([task.tag])
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=0)]


async def test_what_a_job_starts_when_it_is_told_to_end_is_stopped_too(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"trap 'setsid sleep 1000 & exit' TERM; sleep 1000 & echo > {fifo}; wait")
    await generator.submit([task])
    await read_line(fifo)
    await generator.cancel([task.tag], grace_s=TIMEOUT_S)
    left = [pid for pid in processes_of([task.tag]).get(task.tag, []) if not is_over(pid)]
    for pid in left:
        signal_process(pid, signal.SIGKILL)
    assert left == []


async def test_a_thousand_waiting_jobs_of_a_long_name_are_cancelled(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    wide = make_task(tmp_path, f"echo > {fifo}; read < {fifo}", 1, nproc=4)
    tags = [f"motoko-{'study' * 10}-{number}" for number in range(1000)]
    waiting = [make_task(tmp_path, "true", 2, tag=tag) for tag in tags]
    await generator.submit([wide, *waiting])
    await read_line(fifo)
    await soon(generator.cancel(tags))
    assert {end.reason for end in await next_ends(generator, 1000)} == {"CANCELLED"}
    await release(fifo)
    await next_ends(generator, 1)


async def test_a_job_whose_directory_was_removed_is_not_executed_again(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    task = make_task(tmp_path, f"echo > {fifo}; read < {fifo}")
    await launch_and_kill(task, fifo=fifo)
    shutil.rmtree(task.directory)
    assert await generator.adopt([(task, {})]) == {task.tag}
    assert task.tag in processes_of([task.tag])
    await release(fifo)
    assert [(end.tag, end.reason) for end in await next_ends(generator, 1)] == [(task.tag, "LOST")]


@pytest.mark.usefixtures("few_descriptors")
async def test_jobs_wait_while_the_spawner_has_no_descriptor_left(tmp_path: Path) -> None:
    generator = BashGenerator(BashOptions(slots=100))
    await generator.submit([make_task(tmp_path, "sleep 0.5", number) for number in range(90)])
    assert {(end.exit_code, end.message) for end in await next_ends(generator, 90)} == {(0, "")}
    await generator.close()


async def test_a_launcher_may_be_closed_while_it_cancels(tmp_path: Path, fifo: Path) -> None:
    generator = BashGenerator(BashOptions(slots=1))
    task = make_task(tmp_path, f"echo > {fifo}; sleep 1000")
    await generator.submit([task])
    await read_line(fifo)
    spawner = spawner_of(task)
    spawner.suspend()
    cancelling = asyncio.create_task(generator.cancel([task.tag]))
    await asyncio.sleep(0)
    cancelling.cancel()
    await asyncio.gather(cancelling, return_exceptions=True)
    await generator.close()
    spawner.resume()
    for pid in processes_of([task.tag])[task.tag]:
        signal_process(pid, signal.SIGKILL)


async def test_a_job_whose_output_cannot_be_written_names_the_file(
    generator: BashGenerator, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "true", run_name="n" * 300)
    await generator.submit([task])
    (end,) = await next_ends(generator, 1)
    assert end.reason == "SUBMIT"
    assert "File name too long: bash ./launch.sh > " in end.message
    assert str(task.stdout) in end.message
