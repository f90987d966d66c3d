"""What is left of a workflow in the list of processes when it was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import psutil

from motoko_core.daemons import Daemon, is_gone, wait_until
from motoko_core.launch.daemon import launcher_daemon, orchestrator_daemon, orchestrator_pid
from motoko_core.launch.found import FoundJob, FoundLauncher, helpers, jobs, launchers, without_lock
from motoko_core.launch.generators import generator_name
from motoko_core.lifecycle import servers

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

#: A spawner ends with its last job; a process that is asked to end gets so long.
_TIMEOUT_S = 5.0


class Remains:
    """The processes of a workflow, or of some of its studies. Made before anything is stopped.

    :param everything: also what belongs to no study.
    :param keep_jobs: jobs, and what looks after them, are meant to stay.
    """

    def __init__(
        self, workflow: Workflow, managers: Sequence[TaskManager], *, everything: bool, keep_jobs: bool
    ) -> None:
        self._workflow = workflow
        self._managers = managers
        self._everything = everything
        self._keep_jobs = keep_jobs
        pids = [found.pid for found in self._launchers() if found.pid]
        self._helpers = [] if keep_jobs else helpers(pids, self._jobs())

    def clear(self) -> None:
        """End the processes of jobs that nobody has stopped: of runs that were deleted, for example."""
        if self._keep_jobs:
            return
        found = self._jobs()
        self._helpers += helpers((), found)
        for signal in (psutil.Process.terminate, psutil.Process.kill):
            for job in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    signal(job.process)
            wait_until(lambda: all(is_gone(job.process) for job in found), _TIMEOUT_S)  # noqa: B023
            found = self._jobs()
        if not wait_until(lambda: all(map(is_gone, self._helpers)), _TIMEOUT_S):
            for process in self._helpers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            wait_until(lambda: all(map(is_gone, self._helpers)), _TIMEOUT_S)

    def left(self) -> list[str]:
        """What is still there, a line each."""
        lines = {found.pid: f"process {found.pid} of {daemon.title}" for daemon, found in self._daemons()}
        for found in self._launchers():
            lines.setdefault(found.pid or 0, f"a launcher (process {found.pid or 'unknown'})")
        if self._everything:
            for idle in without_lock(self._workflow):
                lines.setdefault(idle, f"a launcher (process {idle})")
            pid = orchestrator_pid(self._workflow)
            if pid is not None:
                lines.setdefault(pid, f"the orchestrator (process {pid})")
        if not self._keep_jobs:
            for job in self._jobs():
                lines.setdefault(job.process.pid, f"process {job.process.pid} of the job of {job.task}")
            for process in self._helpers:
                if not is_gone(process):
                    lines.setdefault(process.pid, f"process {process.pid}, which starts jobs")
        return list(lines.values())

    # ------------------------------------------------------------------ looking

    def _jobs(self) -> list[FoundJob]:
        local = [manager for manager in self._managers if self._is_local(manager)]
        return jobs(local) if local else []

    def _is_local(self, manager: TaskManager) -> bool:
        from motoko_core.errors import MotokoError

        try:
            name = generator_name(self._workflow, manager)
            directory = self._workflow.configuration.directory
            return self._workflow.plugins.generator(name, directory).on_this_machine
        except MotokoError:
            return False

    def _launchers(self) -> Iterator[FoundLauncher]:
        names = {manager.study for manager in self._managers}
        for found in launchers(self._workflow, list(self._workflow.task_managers.values())):
            # One that serves others as well, or works elsewhere, was left alone.
            if names.issuperset(found.studies) and not found.host:
                yield found

    def _daemons(self) -> Iterable[tuple[Daemon, psutil.Process]]:
        workflow = self._workflow
        served = servers(workflow) if self._everything else [m.database.server for m in self._managers]
        daemons = [server.daemon for server in served if server.is_local]
        daemons += [launcher_daemon(workflow, manager.study) for manager in self._managers]
        if self._everything:
            daemons += [launcher_daemon(workflow), orchestrator_daemon(workflow)]
        for daemon in daemons:
            for process in daemon.processes():
                if not is_gone(process):
                    yield daemon, process
