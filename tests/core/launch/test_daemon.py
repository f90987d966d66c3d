"""The launcher in the background, under zdaemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoko_core.daemons import wait_until
from motoko_core.errors import AlreadyRunning, ConfigError, MotokoError
from motoko_core.launch import daemon
from motoko_core.launch.daemon import launch, launcher_locks, run_launcher, stop_launcher
from motoko_core.launch.generators import make_generator
from motoko_core.locks import held, holder
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import TIMEOUT_S, create_tasks, write_workflow
from tests.launching import entries_of, read_line, release, settled


@pytest.fixture
def idle(scripts: Workflow) -> Iterator[Workflow]:
    """A created workflow; launchers that a test leaves behind are stopped."""
    yield scripts
    stop_launcher(scripts)


def launcher_pid(workflow: Workflow, study: str = "mult") -> int | None:
    return holder(launcher_locks([workflow.task_managers[study]])[0])


async def test_a_detached_launcher_works_until_it_is_stopped(idle: Workflow, tmp_path: Path) -> None:
    assert not idle.has_launcher()
    assert launch(idle, study="all", generator=None, detach=True)
    assert idle.has_launcher()
    run, other = (
        *create_tasks(idle, label=f"pwd > {tmp_path}/here"),
        *create_tasks(idle, study="add", label="true"),
    )
    assert [entries["state"] for entries in await settled(idle, run, other)] == ["FINISHED", "FINISHED"]
    assert (tmp_path / "here").read_text().strip() == entries_of(idle, run)["run_path"]

    # A second one is refused, in the background and here.
    assert not launch(idle, study="all", generator=None, detach=True)
    assert not launch(idle, study="mult", generator=None, detach=True)
    with pytest.raises(AlreadyRunning, match="a launcher of study 'mult' is running already") as raised:
        run_launcher(idle)
    assert str(launcher_pid(idle)) in str(raised.value)
    assert "motoko kill" in str(raised.value)

    assert stop_launcher(idle) == ["the launcher"]
    assert not idle.has_launcher()
    assert stop_launcher(idle) == []


async def test_a_detached_launcher_that_is_killed_comes_back_and_follows_its_jobs(
    idle: Workflow, fifo: Path, tmp_path: Path
) -> None:
    launch(idle, study="all", generator=None, detach=True)
    (run,) = create_tasks(idle, label=f"echo >> {tmp_path}/log; echo > {fifo}; read < {fifo}; exit 3")
    await read_line(fifo)
    first = launcher_pid(idle)
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        return launcher_pid(idle) not in (None, 0, first)

    assert await asyncio.to_thread(wait_until, is_back, TIMEOUT_S)
    await release(fifo)
    (entries,) = await settled(idle, run)
    assert entries["motoko_failure"]["exit_code"] == 3
    assert len((tmp_path / "log").read_text()) == 1


async def test_jobs_survive_the_stop_of_a_detached_launcher(idle: Workflow, fifo: Path) -> None:
    launch(idle, study="all", generator="bash", detach=True)
    (run,) = create_tasks(idle, label=f"echo > {fifo}; read < {fifo}")
    await read_line(fifo)
    stop_launcher(idle)
    assert entries_of(idle, run)["state"] == "launched"
    await release(fifo)
    launch(idle, study="all", generator="bashCoat", detach=True)
    (entries,) = await settled(idle, run)
    assert entries["state"] == "FINISHED"


async def test_a_launcher_can_serve_one_study(idle: Workflow) -> None:
    assert launch(idle, study="plus", generator=None, detach=True) is True  # an alias of `add`
    (run,) = create_tasks(idle, study="add", label="true")
    await settled(idle, run)
    assert launcher_pid(idle, "mult") is None
    assert not launch(idle, study="all", generator=None, detach=True)
    assert launch(idle, study="mult", generator=None, detach=True)
    assert set(stop_launcher(idle)) == {"the launcher of add", "the launcher of mult"}


def test_one_study_can_be_stopped_alone(idle: Workflow) -> None:
    launch(idle, study="add", generator=None, detach=True)
    launch(idle, study="mult", generator=None, detach=True)
    assert stop_launcher(idle, "add") == ["the launcher of add"]
    assert launcher_pid(idle, "add") is None
    assert launcher_pid(idle, "mult") is not None


def test_a_launcher_that_does_not_start_is_reported_with_its_log(
    idle: Workflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("print('the reason', flush=True)\nraise SystemExit(2)\n")
    monkeypatch.setattr(daemon, "command", lambda *_: [sys.executable, str(broken)])
    with pytest.raises(MotokoError, match="the launcher did not start") as raised:
        launch(idle, study="all", generator=None, detach=True)
    assert "the reason" in str(raised.value)
    assert stop_launcher(idle) == []


def test_the_lock_tells_who_launches(idle: Workflow) -> None:
    (lock,) = launcher_locks([idle.mult])
    with held(lock, "a test", ""):
        assert launcher_pid(idle) == os.getpid()
        assert not launch(idle, study="all", generator=None, detach=True)
    assert launcher_pid(idle) is None


# --------------------------------------------------------------------------- what is wrong is said at once


@pytest.mark.parametrize("generator", ["bash", "bashCoat"])
def test_generators_have_the_names_of_blackdynamites_coats_as_well(idle: Workflow, generator: str) -> None:
    assert isinstance(make_generator(idle, generator), BashGenerator)


def test_an_unknown_generator_or_study_is_refused_with_the_known_ones(idle: Workflow) -> None:
    with pytest.raises(ConfigError, match="bash"):
        launch(idle, study="all", generator="bosh", detach=True)
    with pytest.raises(ConfigError, match="mult"):
        launch(idle, study="molt", generator=None, detach=True)
    assert not idle.has_launcher()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bash_options: {slot: 3}", "unknown option 'slot'"),
        ("bash_options: [slot=3]", "unknown option 'slot=3'"),
        ("bash_options: {slots: 0}", "not a positive whole number"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest(tmp_path: Path, options: str, message: str) -> None:
    yaml = f"task_managers:\n  mult:\norchestrator: orchestrator.main\n{options}\n"
    workflow = Workflow(write_workflow(tmp_path / "w", studies=("mult",), yaml=yaml))
    with pytest.raises(ConfigError, match=message) as raised:
        make_generator(workflow)
    assert "slots" in str(raised.value)


def test_options_of_the_generator_come_from_motoko_yaml(tmp_path: Path) -> None:
    yaml = """
        task_managers:
          mult:
        orchestrator: orchestrator.main
        generator: bashCoat
        bash_options: [slots=3]
    """
    workflow = Workflow(write_workflow(tmp_path / "w", studies=("mult",), yaml=yaml))
    assert make_generator(workflow).options.slots == 3
