"""A workflow whose runs execute what their job parameter ``label`` says, and launchers in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import transaction

from motoko_core import lifecycle
from motoko_core.entries import HANDLE, handle_of
from motoko_core.launch import launcher as launcher_module
from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.session import transact
from motoko_core.states import is_active
from motoko_core.study.feed import feed_of
from motoko_core.task_manager import TaskManager
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S, stop_everything, write_workflow

#: What generators are called that are not bash's own.
NAME = "a test's"
SCRIPT = "__BLACKDYNAMITE__label__\n"


@pytest.fixture(scope="session")
def launch_directory() -> Iterator[Path]:
    """A created workflow with running servers, for the tests of the launcher only."""
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    workflow = Workflow(write_workflow(directory, launch=SCRIPT))
    workflow.create(validated=True)
    lifecycle.disconnect(workflow)
    yield directory
    stop_everything(workflow)
    shutil.rmtree(directory)


_numbers = itertools.count(1)
#: By study, the latest run that earlier tests have left: theirs are thousands, and retired.
_retired: dict[str, int] = {}


@pytest.fixture
def scripts(launch_directory: Path) -> Iterator[Workflow]:
    """A workflow object on that directory; what a test leaves behind is of no interest to the next one."""
    workflow = Workflow(launch_directory / "motoko.yaml")
    workflow.run_name = f"launch{os.getpid()}-{next(_numbers)}"
    yield workflow
    transaction.abort()

    def retire() -> None:
        for manager in workflow.task_managers.values():
            for run in manager.base._get_runs().entries.values(min=_retired.get(manager.study, 0) + 1):
                if is_active(run.entries.get("state")):
                    run.entries["state"] = "RETIRED"
                run.entries.pop(HANDLE, None)

    def latest() -> dict[str, int]:
        runs = {
            manager.study: manager.base._get_runs().entries for manager in workflow.task_managers.values()
        }
        return {study: entries.maxKey() for study, entries in runs.items() if entries}

    transact("the end of a test", retire)
    _retired.update(transact("the end of a test", latest))
    lifecycle.disconnect(workflow)


@pytest.fixture(autouse=True)
def no_safety_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever relies on it in a test hangs."""
    monkeypatch.setattr(launcher_module, "_SAFETY_S", 1000.0)


def no_other(manager: TaskManager, name: str) -> Service:
    """For launchers whose generator has got all jobs."""
    raise AssertionError(f"generator {name!r} was asked for")


Launching = Callable[..., contextlib.AbstractAsyncContextManager[Launcher]]


@contextlib.asynccontextmanager
async def launching(
    workflow: Workflow,
    *,
    generator: Any = None,
    slots: int = 2,
    studies: Iterable[str] = ("mult", "add"),
    keep_jobs: bool = False,
    **settings: Any,
) -> AsyncIterator[Launcher]:
    """A launcher at work in this process; the block is cancelled if the launcher dies."""
    generator = generator or BashGenerator(BashOptions(slots=slots))
    name = "bash" if type(generator) is BashGenerator else NAME
    services = {workflow.task_managers[study]: Service(generator=generator, name=name) for study in studies}
    launcher = Launcher(services, keep_jobs=keep_jobs, **settings)
    running = asyncio.create_task(launcher.run())
    block = asyncio.current_task()
    assert block is not None
    running.add_done_callback(
        lambda task: None if task.cancelled() or not task.exception() else block.cancel()
    )
    try:
        yield launcher
    finally:
        launcher.stop()
        await asyncio.wait_for(running, TIMEOUT_S)


def failure_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Why a run failed, without the name of its execution; empty if it did not."""
    return {name: value for name, value in entries.get("motoko_failure", {}).items() if name != "tag"}


def entries_of(workflow: Workflow, reference: str) -> dict[str, Any]:
    """All that is stored with a run, in a snapshot of its own; also while a server is started again."""

    def look() -> dict[str, Any]:
        study, _, run_id = reference.rpartition(".")
        run = workflow.task_managers[study].base._get_runs().entries.get(int(run_id))
        return {} if run is None else dict(run.entries)

    def read() -> dict[str, Any]:
        entries = look()
        return {**entries, "motoko_handle": handle_of(entries)} if entries.get("motoko_handle") else entries

    return transact("the test", read)


async def until(
    workflow: Workflow,
    reference: str,
    condition: Callable[[dict[str, Any]], object],
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Wait until a run is so, and answer its entries."""
    manager = workflow.task_managers[reference.rpartition(".")[0]]

    async def look() -> dict[str, Any]:
        with feed_of(manager.database) as feed, feed.changes() as changes:
            while not condition(entries := entries_of(workflow, reference)):
                await anext(changes)
            return entries

    return await asyncio.wait_for(look(), timeout_s)


def is_settled(entries: dict[str, Any]) -> bool:
    """Whether a run is over, and the launcher has written so."""
    return not is_active(entries["state"]) and "motoko_handle" not in entries


async def settled(workflow: Workflow, *references: str, timeout_s: float = TIMEOUT_S) -> list[dict[str, Any]]:
    """Wait until these runs are over, for each no longer than ``timeout_s``; answer their entries."""
    return [await until(workflow, reference, is_settled, timeout_s) for reference in references]


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, TIMEOUT_S)


#: What jobs have said at once with a line that was read already, by fifo.
_unread: dict[Path, list[str]] = {}


async def read_line(fifo: Path) -> str:
    """Wait for a job to say something; of what two jobs say at once, one line for each call."""
    if not _unread.get(fifo):
        _unread[fifo] = (await _at(fifo, fifo.read_text)).splitlines(keepends=True)
    return _unread[fifo].pop(0)


async def release(fifo: Path) -> None:
    """Let a job go on that reads the fifo."""
    await _at(fifo, fifo.write_text, "go\n")


async def _at(fifo: Path, action: Callable[..., Any], *arguments: str) -> Any:
    """Do what blocks until a job is at the other end of a fifo.

    Who stops waiting leaves no blocked thread behind: this process would wait for it at its end.
    """
    try:
        return await soon(asyncio.to_thread(action, *arguments))
    except BaseException:
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
        raise


def stoppable(directory: Path, fifo: Path) -> str:
    """A script whose first execution goes on until it is stopped; the second one ends at once.

    The file ``log`` gets a line at the start of each, and at the end of the first.
    """
    log, first = directory / "log", directory / "first"
    return (
        f"echo start >> {log}; test -e {first} && exit; touch {first}; "
        f"trap 'echo end >> {log}; exit 1' TERM; echo > {fifo}; sleep 1000 & wait"
    )


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path
