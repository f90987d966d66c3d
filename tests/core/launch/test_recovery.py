"""What the next launcher makes of what the last one has left; nothing is executed twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ZEO.Exceptions import ClientDisconnected

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.errors import ConfigError
from motoko_core.interfaces import ExitRecord, LaunchTask, read_exit_record
from motoko_core.launch import writing
from motoko_core.launch.service import Service
from motoko_core.launch.stopping import stop_local
from motoko_core.task_manager import TaskManager
from motoko_core.workflow import Workflow
from motoko_plugins.generators._processes import processes_of
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.faults import limit_files
from tests.launching import SCRIPT, entries_of, failure_of, launching, read_line, release, settled, stoppable
from tests.processes import runzeo

LAUNCHER = """
import os, sys
from motoko_core.launch import endings, launcher, records
from motoko_core.launch.daemon import run_launcher
from motoko_core.task_manager import TaskManager
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator

path, death = sys.argv[1:]

def die(*args, **kwargs):
    os.kill(os.getpid(), 9)

async def submit_and_die(self, batch, submit=BashGenerator.submit):
    await submit(self, batch)
    die()

if death == "before the directory":
    records.prepare = die
elif death == "between launch and submission":
    BashGenerator.submit = die
elif death == "after submission":
    BashGenerator.submit = submit_and_die
elif death == "between end and settlement":
    endings.settle = die
run_launcher(Workflow(path))
"""


@contextmanager
def other_launcher(workflow: Workflow, death: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher in a process of its own, which kills itself with -9 at some point."""
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, workflow.config_path, death]) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(TIMEOUT_S)


async def killed_launcher(workflow: Workflow, death: str) -> None:
    with other_launcher(workflow, death) as process:
        assert await asyncio.to_thread(process.wait, TIMEOUT_S) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("death", "state_left"),
    [
        ("before the directory", "launched"),
        ("between launch and submission", "launched"),
        ("after submission", "launched"),
        ("between end and settlement", "launched"),
    ],
)
async def test_a_launcher_that_dies_is_continued_and_each_run_is_executed_once(
    scripts: Workflow, tmp_path: Path, death: str, state_left: str
) -> None:
    good = create_tasks(scripts, label=f"echo $BLACKDYNAMITE_RUN_ID >> {tmp_path}/log", n=[1, 2])
    bad = create_tasks(scripts, label=f"echo $BLACKDYNAMITE_RUN_ID >> {tmp_path}/log; exit 6", n=[3, 4])
    await killed_launcher(scripts, death)
    states = [entries_of(scripts, run)["state"] for run in (*good, *bad)]
    assert state_left in states
    assert set(states) <= {state_left, "CREATED"}
    async with launching(scripts):
        ends = await settled(scripts, *good, *bad)
    assert [entries["state"] for entries in ends] == ["FINISHED", "FINISHED", "FAILED", "FAILED"]
    assert [e["motoko_failure"]["exit_code"] for e in ends[2:]] == [6, 6]
    executed = sorted((tmp_path / "log").read_text().split())
    assert executed == sorted(run.rpartition(".")[2] for run in (*good, *bad))


@pytest.fixture
async def orphan(scripts: Workflow, fifo: Path, tmp_path: Path) -> str:
    """A run whose launcher was killed while its job was at work; the job waits for the fifo."""
    script = f"echo >> {tmp_path}/log; echo > {fifo}; read < {fifo}; echo too bad >&2; exit 7"
    (run,) = create_tasks(scripts, label=script)
    with other_launcher(scripts, "never") as process:
        await read_line(fifo)
        process.kill()
    return run


async def test_a_job_at_work_is_followed_by_the_next_launcher(
    scripts: Workflow, orphan: str, fifo: Path, tmp_path: Path
) -> None:
    async with launching(scripts):
        await release(fifo)
        (entries,) = await settled(scripts, orphan)
    assert failure_of(entries) == {
        "reason": "EXIT_CODE",
        "exit_code": 7,
        "attempt": 1,
        "stderr": "too bad\n",
    }
    assert len((tmp_path / "log").read_text()) == 1


async def test_a_cancellation_during_a_long_recovery_is_not_forgotten(
    scripts: Workflow, orphan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator does not know the job yet when it is told to cancel it."""
    monkeypatch.setattr("motoko_core.launch.launcher._RECOVERY_PATIENCE_S", 0.0)
    adopt, cancel = BashGenerator.adopt, BashGenerator.cancel
    adopting, go_on, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def adopt_late(self: BashGenerator, batch: Any) -> set[str]:
        adopting.set()
        await go_on.wait()
        return await adopt(self, batch)

    async def noted(self: BashGenerator, tags: Sequence[str], **options: Any) -> None:
        told.set()
        await cancel(self, tags, **options)

    monkeypatch.setattr(BashGenerator, "adopt", adopt_late)
    monkeypatch.setattr(BashGenerator, "cancel", noted)
    async with launching(scripts):
        await asyncio.wait_for(adopting.wait(), TIMEOUT_S)
        set_state(
            scripts, orphan, "launched", motoko_cancel=entries_of(scripts, orphan)["motoko_handle"]["tag"]
        )
        await asyncio.wait_for(told.wait(), TIMEOUT_S)
        go_on.set()
        (entries,) = await settled(scripts, orphan)
    assert entries["motoko_failure"]["reason"] == "CANCELLED"


def record_of(workflow: Workflow, run: str) -> ExitRecord | None:
    entries = entries_of(workflow, run)
    return read_exit_record(Path(entries["run_path"]), entries["motoko_handle"]["tag"])


async def wait_for_exit_code(workflow: Workflow, run: str) -> None:
    def has_ended() -> bool:
        record = record_of(workflow, run)
        return record is not None and record.exit_code == 7

    assert await asyncio.to_thread(wait_until, has_ended, TIMEOUT_S)


async def test_a_job_that_ended_while_no_launcher_was_there_is_settled(
    scripts: Workflow, orphan: str, fifo: Path, tmp_path: Path
) -> None:
    await release(fifo)
    await wait_for_exit_code(scripts, orphan)
    assert entries_of(scripts, orphan)["state"] == "launched"
    async with launching(scripts):
        (entries,) = await settled(scripts, orphan)
    assert (entries["state"], entries["motoko_failure"]["exit_code"]) == ("FAILED", 7)
    assert len((tmp_path / "log").read_text()) == 1


async def test_a_failure_that_the_script_wrote_while_no_launcher_was_there_is_explained(
    scripts: Workflow, orphan: str, fifo: Path
) -> None:
    set_state(scripts, orphan, "FAILURE")
    await release(fifo)
    await wait_for_exit_code(scripts, orphan)
    async with launching(scripts):
        (entries,) = await settled(scripts, orphan)
    assert entries["state"] == "FAILURE"
    assert entries["motoko_failure"]["stderr"] == "too bad\n"


async def test_a_job_that_vanished_is_lost_and_not_executed_again(
    scripts: Workflow, orphan: str, tmp_path: Path
) -> None:
    record = record_of(scripts, orphan)
    assert record is not None
    os.kill(int(record.job.rpartition(":")[2]), signal.SIGKILL)  # else the spawner tells how it ended
    tag = entries_of(scripts, orphan)["motoko_handle"]["tag"]
    for pid in processes_of([tag])[tag]:
        os.kill(pid, signal.SIGKILL)
    async with launching(scripts):
        (entries,) = await settled(scripts, orphan)
    assert entries["state"] == "FAILED"
    assert (entries["motoko_failure"]["reason"], entries["motoko_failure"]["exit_code"]) == ("LOST", None)
    assert len((tmp_path / "log").read_text()) == 1


async def test_a_run_that_was_reset_while_no_launcher_was_there_is_executed_again(
    scripts: Workflow, orphan: str, fifo: Path, tmp_path: Path
) -> None:
    await release(fifo)
    await wait_for_exit_code(scripts, orphan)
    set_state(scripts, orphan, "CREATED")
    async with launching(scripts):
        await read_line(fifo)
        await release(fifo)
        await settled(scripts, orphan)
    assert len((tmp_path / "log").read_text()) == 2


@pytest.mark.parametrize("state", ["FINISHED", "FORWARDED"])
async def test_a_job_that_goes_on_after_its_run_is_over_is_followed(
    scripts: Workflow, orphan: str, fifo: Path, tmp_path: Path, state: str
) -> None:
    set_state(scripts, orphan, state)
    async with launching(scripts):
        (other,) = create_tasks(scripts, label="true", n=2)
        await settled(scripts, other)
        assert entries_of(scripts, orphan)["motoko_handle"]
        await release(fifo)
        (entries,) = await settled(scripts, orphan)
    assert (entries["state"], entries.get("motoko_failure")) == (state, None)
    assert len((tmp_path / "log").read_text()) == 1


async def test_a_run_that_was_reset_while_no_launcher_was_there_waits_until_its_job_has_ended(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    (run,) = create_tasks(scripts, label=stoppable(tmp_path, fifo))
    with other_launcher(scripts, "never") as process:
        await read_line(fifo)
        process.kill()
    set_state(scripts, run, "CREATED")
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
    assert (tmp_path / "log").read_text().split() == ["start", "end", "start"]


async def test_a_job_is_followed_by_the_generator_that_has_got_it(
    scripts: Workflow, orphan: str, fifo: Path, tmp_path: Path
) -> None:
    # Since then motoko.yaml names another generator, which knows nothing of the job.
    made: list[str] = []
    found: list[Any] = []
    own = BashOptions(slots=1)

    class Noting(BashGenerator):
        async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
            found.extend(task.settings for task, _ in batch)
            return await super().adopt(batch)

    def other(manager: TaskManager, name: str) -> Service:
        made.append(name)
        return Service(generator=Noting(own), name=name, settings=own)

    async with launching(scripts, generator=Forgetful(), other=other):
        await release(fifo)
        (entries,) = await settled(scripts, orphan)
    assert made == ["bash"]
    (settings,) = found
    assert settings is own  # not those of motoko.yaml's generator
    assert entries["motoko_failure"]["exit_code"] == 7
    assert len((tmp_path / "log").read_text()) == 1


async def test_a_job_whose_generator_cannot_be_used_is_left_as_it_is(
    scripts: Workflow, orphan: str, fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def other(manager: TaskManager, name: str) -> Service:
        raise ConfigError("the program is not on the PATH")

    async with launching(scripts, generator=Forgetful(), other=other) as launcher:
        launcher.stop()
    assert entries_of(scripts, orphan)["state"] == "launched"
    assert f"{orphan} are left as they are: generator 'bash'" in caplog.text
    async with launching(scripts):
        await release(fifo)
        (entries,) = await settled(scripts, orphan)
    assert entries["motoko_failure"]["exit_code"] == 7


class Forgetful(BashGenerator):
    """One that knows nothing of any job."""

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        return set()


async def test_an_entry_that_looks_like_a_handle_and_is_none_stops_nobody(
    scripts: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    (odd,) = create_tasks(scripts, label="true")
    set_state(scripts, odd, "launched", motoko_handle="ductile")
    async with launching(scripts):
        (other,) = create_tasks(scripts, label="true", n=2)
        await settled(scripts, other)
    assert f"{odd} are left as they are: no launcher has written their entry 'motoko_handle'" in caplog.text


async def test_runs_of_other_launchers_are_left_alone(scripts: Workflow) -> None:
    (foreign,) = create_tasks(scripts, label="true")
    set_state(scripts, foreign, "START")  # BlackDynamite's own launch_daemon keeps no handle
    async with launching(scripts):
        (other,) = create_tasks(scripts, label="true", n=2)
        await settled(scripts, other)
    assert entries_of(scripts, foreign)["state"] == "START"


# --------------------------------------------------------------------------- the server goes away


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_connection_at_each_transaction_changes_nothing(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, committed: bool
) -> None:
    seen: set[str] = set()

    write = writing.Writer._write

    def flaky(writer: writing.Writer, manager: TaskManager, title: str, work: Callable[[Any], Any]) -> Any:
        what = title.rpartition(": ")[2]
        answer = write(writer, manager, title, work) if committed or what in seen else None
        if what not in seen:
            seen.add(what)
            raise ClientDisconnected("the answer never arrived")
        return answer

    monkeypatch.setattr(writing.Writer, "_write", flaky)
    monkeypatch.setattr(writing, "_RECONNECT_S", (0.0, 0.0))
    runs = create_tasks(scripts, label=f"echo $BLACKDYNAMITE_RUN_ID >> {tmp_path}/log; exit 2", n=[1, 2, 3])
    async with launching(scripts, slots=1):
        ends = await settled(scripts, *runs)
    assert {entries["motoko_failure"]["exit_code"] for entries in ends} == {2}
    assert sorted((tmp_path / "log").read_text().split()) == sorted(r.rpartition(".")[2] for r in runs)
    assert seen >= {"look", "round"}


async def test_a_launcher_that_is_to_stop_does_not_wait_for_a_server(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch, fifo: Path
) -> None:
    async with launching(scripts, keep_jobs=False) as launcher:
        (run,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)

        def dead(*_: object) -> None:
            raise ClientDisconnected("nobody there")

        monkeypatch.setattr(writing.Writer, "_write", dead)
        launcher.stop()
    assert entries_of(scripts, run)["state"] == "launched"
    monkeypatch.undo()
    async with launching(scripts):
        await release(fifo)  # its job was not stopped: nobody could have written that down
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"


async def test_a_server_that_is_killed_comes_back_and_no_run_suffers(
    make_workflow: Callable[..., Workflow], tmp_path: Path
) -> None:
    workflow = make_workflow(launch=SCRIPT)
    workflow.create(validated=True)
    workflow.run_name = "w"
    log = tmp_path / "log"
    (server,) = [
        process
        for process in workflow.mult.database.server.daemon.processes()
        if "zdrun" not in " ".join(process.cmdline())
    ]
    async with launching(workflow, slots=2):
        runs = create_tasks(workflow, label=f"echo mult.$BLACKDYNAMITE_RUN_ID >> {log}", n=list(range(100)))
        await settled(workflow, runs[10])
        server.kill()
        ends = await settled(workflow, *runs)
        (later,) = create_tasks(workflow, label="true", n=1000)
        await settled(workflow, later)
    lifecycle.disconnect(workflow)
    assert {entries["state"] for entries in ends} == {"FINISHED"}
    assert sorted(log.read_text().split()) == sorted(runs)


@pytest.fixture
def two(make_workflow: Callable[..., Workflow]) -> Iterator[Workflow]:
    """A workflow of its own, whose servers a test may hold up."""
    workflow = make_workflow(launch=SCRIPT)
    workflow.create(validated=True)
    workflow.run_name = "w"
    yield workflow
    lifecycle.disconnect(workflow)


async def test_a_silent_server_holds_up_its_own_study_alone(two: Workflow, fifo: Path) -> None:
    async with launching(two, slots=2):
        (held,) = create_tasks(two, label=f"echo > {fifo}; read < {fifo}; exit 3")
        await read_line(fifo)
        server = runzeo(two.mult.database)
        server.suspend()
        try:
            two.mult.database.pulse.doubt()  # it was heard a moment ago
            await release(fifo)  # how it ends cannot be written now
            for x in range(3):
                (other,) = create_tasks(two, study="add", label="true", x=x)
                (entries,) = await settled(two, other)
                assert entries["state"] == "FINISHED"
        finally:
            server.resume()
        (entries,) = await settled(two, held)
    assert entries["motoko_failure"]["exit_code"] == 3


async def test_a_study_that_cannot_be_written_does_not_keep_the_others_when_the_launcher_stops(
    two: Workflow, fifo: Path
) -> None:
    fifos = {"mult": fifo, "add": fifo.with_name("other")}  # two who write at once would be read as one
    os.mkfifo(fifos["add"])
    async with launching(two, keep_jobs=False):
        (lost, other) = (
            create_tasks(two, study=study, label=f"echo > {path}; sleep 1000")[0]
            for study, path in fifos.items()
        )
        for path in fifos.values():
            await read_line(path)
        server = two.mult.database.server
        limit_files(server, server.data.stat().st_size)
    limit_files(server, -1)
    entries = entries_of(two, lost)
    assert (entries["state"], bool(entries["motoko_handle"])) == ("launched", True)
    entries = entries_of(two, other)
    assert (entries["state"], entries.get("motoko_handle")) == ("CREATED", None)
    assert (await asyncio.to_thread(stop_local, two, [two.mult])).count == 1
