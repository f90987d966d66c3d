"""The study of the suite's workflow, and launchers that serve it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
from collections.abc import AsyncIterator, Mapping
from typing import Any

from motoko_core.entries import HANDLE, stored_failure
from motoko_core.launch.generators import services
from motoko_core.launch.launcher import Launcher
from motoko_core.session import transact
from motoko_core.states import is_active
from motoko_core.study.feed import feed_of
from motoko_core.testing.mortal import command
from motoko_core.testing.subject import STUDY
from motoko_core.workflow import Workflow

__all__ = ["TEXT", "Study"]

_numbers = itertools.count(1)

#: What a run's script does at the end -> state, reason and exit code of the run.
_ENDS: Mapping[str, tuple[str, str | None, int | None]] = {
    "exit 0": ("FINISHED", None, None),
    "exit 6": ("FAILED", "EXIT_CODE", 6),
    "kill -9 $$": ("FAILED", "SIGNAL", -9),
}
TEXT = 'it\'s "3 < 4" & `touch pwned` $(touch pwned)\n#SBATCH --begin=now+1hour\n#PBS -q nowhere'


class Study:
    """The study of the suite's workflow, and which of its runs were executed how often."""

    def __init__(self, workflow: Workflow, timeout_s: float) -> None:
        self.workflow = workflow
        self.manager = workflow.task_managers[STUDY]
        self.executed = workflow.configuration.directory / "executed"
        self.executed.mkdir(exist_ok=True)
        self._timeout_s = timeout_s
        #: run id -> how it is to end
        self.expected: dict[int, str] = {}

    def create(self, count: int) -> None:
        """Create runs of every kind, which write down that they are executed."""

        def work() -> dict[int, str]:
            found = {}
            for number in range(count):
                end = list(_ENDS)[number % len(_ENDS)]
                # One file for each run: not every shared file system can append to one from several nodes.
                script = (
                    f'echo "$MOTOKO_TAG" >> {self.executed}/$BLACKDYNAMITE_RUN_ID\n'
                    f"cat <<'EOF'\n{TEXT}\nEOF\n{end}"
                )
                for run, _ in self.manager.createTask(script=script, number=next(_numbers)):
                    found[run.id] = end
            return found

        self.expected.update(transact("the conformance suite", work))

    def entries(self) -> dict[int, dict[str, Any]]:
        """What is stored with the runs that were created here, by id."""

        def look() -> dict[int, dict[str, Any]]:
            runs = self.manager.base._get_runs().entries
            return {run_id: dict(runs[run_id].entries) for run_id in self.expected}

        return transact("the conformance suite", look)

    def open_runs(self) -> list[int]:
        """The runs that are not over, or whose end no launcher has written."""
        found = self.entries()
        return [i for i, entries in found.items() if is_active(entries["state"]) or HANDLE in entries]

    async def settled(self) -> None:
        """Wait until every run is over."""

        async def look() -> None:
            with feed_of(self.manager.database) as feed, feed.changes() as changes:
                while self.open_runs():
                    await anext(changes)

        try:
            await asyncio.wait_for(look(), self._timeout_s)
        except asyncio.TimeoutError:
            found = {i: self.entries()[i] for i in self.open_runs()}
            raise AssertionError(f"after {self._timeout_s:g} s these runs are not over: {found}") from None

    def retire(self) -> None:
        """Take what is left from the hands of the launchers to come."""

        def work() -> None:
            runs = self.manager.base._get_runs().entries
            for run_id in self.open_runs():
                runs[run_id].entries["state"] = "RETIRED"
                runs[run_id].entries.pop(HANDLE, None)

        transact("the conformance suite", work)

    def check(self, what: str = "") -> None:
        """Each run was executed exactly once, and ended as it should. ``what``: what was done to them."""
        times = {i: self._times(i) for i in self.expected}
        assert {i: n for i, n in times.items() if n != 1} == {}, f"run id -> executions; {what}"
        wrong = {}
        for run_id, entries in self.entries().items():
            failure = stored_failure(entries)
            state, reason, code = _ENDS[self.expected[run_id]]
            end = (entries["state"], failure.get("reason"), failure.get("exit_code"))
            # A scheduler may say no more than that it was killed.
            if end != (state, reason, code) and (reason != "SIGNAL" or end[:2] != (state, reason)):
                wrong[run_id] = (self.expected[run_id], end, failure)
        assert wrong == {}, f"run id -> how it should have ended, how it did; {what}"

    def _times(self, run_id: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            return len((self.executed / str(run_id)).read_text().splitlines())
        return 0

    @contextlib.asynccontextmanager
    async def launcher(self) -> AsyncIterator[None]:
        """A launcher at work in this process, until the end of the block."""
        launcher = Launcher(services(self.workflow, [self.manager]))
        running = asyncio.create_task(launcher.run())
        block = asyncio.current_task()
        assert block is not None
        running.add_done_callback(lambda task: task.cancelled() or not task.exception() or block.cancel())
        try:
            yield
        finally:
            launcher.stop()
            await asyncio.wait_for(running, self._timeout_s)

    async def dying_launcher(self, **death: Any) -> int:
        """A launcher in a process of its own; answer its exit code when it is dead, or all runs are over.

        :param death: see :func:`motoko_core.testing.mortal.command`.
        """
        words = command(self.workflow.configuration.path, **death)
        with subprocess.Popen(words) as process:  # noqa: ASYNC220 - at once, for it waits for nothing
            waiting = asyncio.create_task(asyncio.to_thread(process.wait))
            settled = asyncio.create_task(self.settled())
            try:
                await asyncio.wait({waiting, settled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                process.kill()
                settled.cancel()
                code = await waiting
                await asyncio.gather(settled, return_exceptions=True)
        return code
