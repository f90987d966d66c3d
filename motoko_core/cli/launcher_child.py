"""The launcher that ``motoko run`` has beside it, as a child process."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.daemons import environment, private_directory
from motoko_core.errors import ConfigError, MotokoError
from motoko_core.launch.daemon import command, launcher_locks, log_tail
from motoko_core.lifecycle import state_directory
from motoko_core.locks import holder

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

_POLL_S = 0.05
_START_TIMEOUT_S = 60.0
#: The bash generator gives jobs five seconds to end; a scheduler may take its time to answer.
_STOP_TIMEOUT_S = 30.0


class LauncherChild:
    """Launches the runs of the studies that no launcher serves yet, as long as we live.

    :param generator: another generator than motoko.yaml names.
    """

    def __init__(self, workflow: Workflow, generator: str | None) -> None:
        self._workflow = workflow
        self._words = ["--do-not-detach", "--cancel-on-exit"]
        if generator:
            self._words += ["--generator", generator]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.log: Path = state_directory(workflow) / "launcher.log"

    def start(self) -> list[str]:
        """Start what is needed; answer the studies that somebody else's launcher serves."""
        managers = list(self._workflow.task_managers.values())
        busy = [m.study for m in managers if holder(launcher_locks([m])[0]) is not None]
        free = [m.study for m in managers if m.study not in busy]
        private_directory(self.log.parent)
        with self.log.open("ab") as log:
            for study in free if busy else ["all"]:
                words = command(self._workflow, "launcher", *self._words, "--bd-study", study)
                self._processes.append(
                    subprocess.Popen(
                        words,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=self._workflow.directory,
                        env=environment(),
                        # Ctrl-C on the terminal is for us; we stop it in our own time.
                        start_new_session=True,
                    )
                )
        return busy

    async def ready(self) -> None:
        """Return when all studies are served.

        :raises MotokoError: the launcher ended, or takes too long.
        """
        locks = launcher_locks(list(self._workflow.task_managers.values()))
        for _ in range(int(_START_TIMEOUT_S / _POLL_S)):
            if all(holder(lock) is not None for lock in locks):
                return
            self._check()
            await asyncio.sleep(_POLL_S)
        raise self._error(f"was not ready after {_START_TIMEOUT_S:g} s")

    async def watch(self) -> None:
        """Never return.

        :raises MotokoError: the launcher ended.
        """
        while True:
            self._check()
            await asyncio.sleep(_POLL_S)

    def _check(self) -> None:
        codes = [process.poll() for process in self._processes]
        ended = [code for code in codes if code is not None]
        if ended:
            error = self._error(f"ended with exit code {ended[0]}")
            error.exit_code = ended[0] if ended[0] == ConfigError.exit_code else error.exit_code
            raise error

    def _error(self, what: str) -> MotokoError:
        return MotokoError(f"the launcher {what}", hint=f"The end of {self.log}:\n{log_tail(self.log)}")

    def stop(self) -> None:
        """Stop it; its jobs are stopped with it, and their runs wait for the next launcher."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End it there and then; the next launcher finds its jobs again."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
