"""The work of ``motoko run``: what it checks, starts, shows and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from motoko_core.cli.executing import execute, noted
from motoko_core.cli.launcher_child import LauncherChild
from motoko_core.cli.orchestrator import summarize
from motoko_core.cli.output import complain, plural, say
from motoko_core.cli.progress import Progress
from motoko_core.config import require_study_files
from motoko_core.errors import MotokoError
from motoko_core.launch.generators import located, services
from motoko_core.lifecycle import create_missing, disconnect, refuse_while_running, servers
from motoko_core.selection import describe_failures
from motoko_core.session import Session, use
from motoko_core.states import ACTIVE, CREATED, is_active, is_failure
from motoko_core.study.starting import start_servers, stop_servers

if TYPE_CHECKING:
    from motoko_core.study.server import Server
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: Run ids of some task managers.
Runs = dict["TaskManager", set[int]]


def check(workflow: Workflow, generator: str | None) -> None:
    """Find what is wrong with the workflow's files before anything is started or written.

    :raises ~motoko_core.errors.MotokoError: something is.
    """
    for manager in workflow.task_managers.values():
        require_study_files(manager.study_config)
    services(workflow, list(workflow.task_managers.values()), generator)
    for name, settings in workflow.configuration.error_handlers:
        with located(workflow.configuration, "error_handlers"):
            workflow.plugins.error_handler(name, **settings)
    refuse_while_running(workflow, "run the workflow")


class Execution:
    """One execution, with what was started for it."""

    #: How many tasks were stopped at the end, and wait for the next execution.
    stopped = 0

    def __init__(self, workflow: Workflow, params: dict[str, Any], generator: str | None) -> None:
        self._workflow = workflow
        self._params = params
        self._launcher = LauncherChild(workflow, generator)
        self._servers: list[Server] = []

    async def work(self) -> int:
        """Execute the workflow, and wait for its last tasks; answer the exit code."""
        with self._started(), noted(self._workflow) as note:
            try:
                note["exit_code"] = await self._execute()
            except BaseException:
                with suppress(Exception):  # what went wrong matters more, and may be the databases themselves
                    self._stop_launcher()
                    summarize(self._workflow)
                raise
            self._stop_launcher()
            summarize(self._workflow)
        return int(note["exit_code"])

    @contextmanager
    def _started(self) -> Iterator[None]:
        created = create_missing(self._workflow)
        if created:
            say(f"created {', '.join(created)}")
        try:
            self._servers = start_servers(servers(self._workflow))
            with use(Session("a look at the databases")):
                for manager in self._workflow.task_managers.values():
                    manager.database.base  # noqa: B018 - what is wrong with it is better said before the launcher
            busy = self._launcher.start()
            if busy:
                say(f"a launcher serves {', '.join(busy)} already; it is used")
            yield
        finally:
            self._launcher.stop()
            disconnect(self._workflow)
            stop_servers(self._servers)

    def _stop_launcher(self) -> None:
        """Stop it, and its jobs; count them."""
        busy = self._runs(None, ACTIVE - {CREATED})
        self._launcher.stop()
        waiting = self._runs(None, frozenset({CREATED}))
        self.stopped = sum(len(busy[manager] & waiting[manager]) for manager in busy)

    def _runs(self, run_name: str | None, states: frozenset[str | None]) -> Runs:
        names = None if run_name is None else frozenset({run_name})
        found = {}
        for manager in self._workflow.task_managers.values():
            manager.database.index.refresh()
            found[manager] = manager.database.index.candidates(names, states)
        return found

    async def _execute(self) -> int:
        await self._launcher.ready()
        progress = Progress(self._workflow)
        watcher = asyncio.ensure_future(self._launcher.watch())
        orchestrator = asyncio.ensure_future(execute(self._workflow, self._params))
        try:
            with progress.shown():
                await asyncio.wait({orchestrator, watcher}, return_when=asyncio.FIRST_COMPLETED)
                if not orchestrator.done():
                    watcher.result()  # raises: the launcher has ended
                code = orchestrator.result()
                if code == 0:
                    last = self._runs(self._workflow.run_name, ACTIVE | {None})
                    await self._wait_for_tasks(progress, watcher, last)
                    _refuse_failed(last)
                return code
        finally:
            for task in (orchestrator, watcher):
                task.cancel()
            await asyncio.gather(orchestrator, watcher, return_exceptions=True)

    async def _wait_for_tasks(self, progress: Progress, watcher: asyncio.Future[None], last: Runs) -> None:
        """Wait until no task of this run is under way any more."""
        told = False
        while True:
            states = [item for c in progress.states().values() for item in c.items()]
            active = sum(count for state, count in states if is_active(state))
            if not active and not any(map(_is_settling, last, last.values())):
                return
            if watcher.done():
                watcher.result()
            if active and not told:
                complain(f"the workflow is finished; waiting for {plural(active, 'task')} under way")
                told = True
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """End what was started, there and then."""
        self._launcher.kill()
        stop_servers(self._servers)


def _is_settling(manager: TaskManager, run_ids: set[int]) -> bool:
    """Whether the reason is still to come, why one of the runs failed."""
    rows = manager.database.index.rows
    found = [row for run_id in run_ids if (row := rows.get(run_id)) is not None]
    return any(is_failure(row.get("state")) and manager.is_settling(row) for row in found)


def _refuse_failed(last: Runs) -> None:
    """:raises ~motoko_core.errors.MotokoError: one of the runs that were waited for at the end has failed."""
    failures: list[tuple[TaskManager, Any]] = []
    with use(Session("the last tasks")):
        for manager, run_ids in last.items():
            runs = manager.database.base._get_runs().entries
            failed = (runs[run_id] for run_id in sorted(run_ids) if run_id in runs)
            failures += [(manager, run) for run in failed if is_failure(run.entries.get("state"))]
        listed = describe_failures(failures)
    if failures:
        raise MotokoError(
            f"{plural(len(failures), 'task')} failed that the end of the workflow left under way:\n"
            f"  {listed}",
            hint="`motoko clean --constraints 'state = FAILED'` makes them ready to be executed again.",
        )
