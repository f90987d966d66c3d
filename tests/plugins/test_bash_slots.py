"""How many jobs of the bash generator run at the same time, and in which order they start."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S
from tests.launching import release
from tests.plugins.conftest import make_task, next_ends


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
    assert generator.room() >= 4
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
        await asyncio.wait_for(asyncio.to_thread(os.read, started, 1), TIMEOUT_S)
    os.write(go, b"\n" * 200)
    ends = await next_ends(generator, 200)
    assert {(end.tag, end.exit_code) for end in ends} == {(task.tag, 0) for task in tasks}
    assert generator.room() >= 200
    await generator.close()
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
    assert generator.room() == 1
    await release(fifo)
    ends = await next_ends(generator, 3)
    assert [(end.tag, end.exit_code) for end in ends] == [(t.tag, 0) for t in (narrow, wide, late)]


async def test_a_waiting_job_that_cannot_start_ends_and_the_next_one_starts(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    wide = make_task(tmp_path, f"read < {fifo}", 1, nproc=4)
    bad = make_task(tmp_path, "true", 2, directory=tmp_path / "absent")
    good = make_task(tmp_path, "true", 3)
    await generator.submit([wide, bad, good])
    await release(fifo)
    ends = await next_ends(generator, 3)
    assert [(end.tag, end.exit_code, end.reason) for end in ends] == [
        (wide.tag, 0, None),
        (bad.tag, None, "SUBMIT"),
        (good.tag, 0, None),
    ]


async def test_as_many_are_taken_ahead_as_have_ended_in_the_last_second(tmp_path: Path) -> None:
    now = 100.0
    generator = BashGenerator(BashOptions(slots=2), clock=lambda: now)
    assert generator.room() == 2
    await generator.submit([make_task(tmp_path, "true", n) for n in range(5)])
    assert generator.room() == 0
    await next_ends(generator, 5)
    now = 100.9
    assert generator.room() == 7
    now = 101.1
    assert generator.room() == 2
    await generator.close()
