"""Workflows for the tests, on real ZEO servers.

Starting servers takes a second, so most tests share one workflow directory per test process, each under a
``run_name`` of its own; a test that needs a directory for itself asks for ``make_workflow``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import transaction
from hypothesis import settings

from motoko_core import lifecycle
from motoko_core.launch.daemon import stop_launcher
from motoko_core.session import transact
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.proxy import Proxied, Proxy

pytest_plugins = ["tests.clusters.skipping", "tests.clusters.fixtures"]

# An assertion that fails in a helper module shows its values, as one in a test does.
pytest.register_assert_rewrite("tests.core")

# The same examples each time, so that a failure is of the change that is tested. To look for new ones:
# MOTOKO_HYPOTHESIS=search python -m pytest -k properties
settings.register_profile("same", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=5_000, print_blob=True)
settings.load_profile(os.environ.get("MOTOKO_HYPOTHESIS", "same"))

#: Enough for a busy machine, and short enough that a test that hangs is seen.
TIMEOUT_S = 30.0

MOTOKO_YAML = """\
task_managers:
  mult:
  add:
aliases:
  plus: add
orchestrator: orchestrator.main
poll_interval: 0.05
"""
BD_YAML = """\
study: {name}
job:
  x: float
  n: int
  label: str
  items: list
run:
  note: str
"""
LAUNCH_SH = """\
echo "working on __BLACKDYNAMITE__id__"
exit 0
"""
ORCHESTRATOR = """\
async def main(workflow, **params):
    pass
"""


def write_workflow(
    directory: Path,
    *,
    studies: tuple[str, ...] = ("mult", "add"),
    launch: str = LAUNCH_SH,
    orchestrator: str = ORCHESTRATOR,
    yaml: str = MOTOKO_YAML,
) -> Path:
    """Write a workflow directory; answer the path of its motoko.yaml."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in studies:
        study = directory / name
        study.mkdir(exist_ok=True)
        (study / "bd.yaml").write_text(BD_YAML.format(name=name))
        (study / "launch.sh").write_text(textwrap.dedent(launch))
        (study / "doIt.py").write_text("")
    (directory / "orchestrator.py").write_text(textwrap.dedent(orchestrator))
    path = directory / "motoko.yaml"
    path.write_text(textwrap.dedent(yaml))
    return path


def stop_everything(workflow: Workflow) -> None:
    """Stop the launcher and the servers of a workflow."""
    lifecycle.disconnect(workflow)
    stop_launcher(workflow)
    stop_servers(lifecycle.servers(workflow))


@pytest.fixture(scope="session")
def shared_directory() -> Iterator[Path]:
    """A created workflow with running servers and no launcher, for all tests of this process."""
    # pytest's own temporary directories are too deep for a Unix socket.
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    workflow = Workflow(write_workflow(directory))
    workflow.create(validated=True)
    workflow.vars.tests = 0
    lifecycle.disconnect(workflow)
    yield directory
    stop_everything(workflow)
    shutil.rmtree(directory)


_numbers = itertools.count(1)


@pytest.fixture
def workflow(shared_directory: Path) -> Iterator[Workflow]:
    """A workflow object of its own on the shared directory, under a fresh ``run_name``."""
    workflow = Workflow(shared_directory / "motoko.yaml")
    workflow.run_name = f"test{os.getpid()}-{next(_numbers)}"
    yield workflow
    transaction.abort()
    lifecycle.disconnect(workflow)


@pytest.fixture
def other(workflow: Workflow) -> Iterator[Workflow]:
    """The same workflow as another process has it: through clients of its own."""
    other = Workflow(workflow.config_path)
    other.run_name = workflow.run_name
    yield other
    lifecycle.disconnect(other)


@pytest.fixture
def make_workflow() -> Iterator[Callable[..., Workflow]]:
    """Write workflow directories; their servers and launchers are stopped after the test."""
    made: list[Workflow] = []
    directories: list[Path] = []

    def make(**files: Any) -> Workflow:
        directory = Path(tempfile.mkdtemp(prefix="mtk-"))
        directories.append(directory)
        made.append(Workflow(write_workflow(directory, **files)))
        return made[-1]

    yield make
    transaction.abort()
    for workflow in made:
        stop_everything(workflow)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


async def orchestrate(workflow: Workflow, main: Callable[..., Any], **params: Any) -> None:
    """Execute ``main`` as the orchestrator of a workflow, within the time limit."""
    workflow.orchestrator_function = main
    await asyncio.wait_for(workflow.execute_async(**params), TIMEOUT_S)


def set_state(workflow: Workflow, reference: str, state: str, **entries: Any) -> None:
    """Change a run in a transaction of its own, as a launcher or a script in another process does."""

    def work() -> None:
        ((run,),) = workflow.get_runs([reference]).values()
        run.entries["state"] = state
        run.entries.update(entries)

    transact("the test", work)


def create_tasks(workflow: Workflow, study: str = "mult", **parameters: Any) -> list[str]:
    """Create tasks in a transaction of their own; answer their references."""

    def work() -> list[str]:
        runs = workflow.task_managers[study].createTask(**parameters)
        return [f"{study}.{run.id}" for run, _ in runs]

    return transact("the test", work)


def number(reference: str) -> int:
    """The id of a run, by its reference."""
    return int(reference.rpartition(".")[2])


def states(workflow: Workflow, study: str = "mult") -> dict[int, str]:
    """The states of the runs of this ``run_name``, by id; with all that others have committed by now."""
    workflow.task_managers[study].database.ping()
    return transact("the test", lambda: {r.id: r.state for r, _ in workflow.task_managers[study].select()})


@pytest.fixture
def through_proxy(workflow: Workflow) -> Iterator[Callable[[str], Proxy]]:
    """Have the workflow's connections to ``mult`` go through a proxy."""
    proxies: dict[Path, Proxy] = {}
    database = workflow.mult.database
    server = database.server

    def connect(place: str) -> Proxy:
        path = Path(workflow.directory) / f"proxy{len(proxies)}-{workflow.run_name}"
        proxies[path] = Proxy(path, str(server.address), place)
        database.close()
        database.server = Proxied(**attrs.asdict(server, recurse=False), proxy=path)
        return proxies[path]

    yield connect
    start_servers([server])
    transaction.abort()
    database.close()
    for path, proxy in proxies.items():
        proxy.close()
        path.unlink()
