"""The launcher: from a CREATED run to a finished one.

claim -> write the run directories -> commit the launched state with a tag -> submit -> commit the handles
-> follow -> settle. After a crash at any point the next launcher finds out from the database and the
generator where each run stands.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ZEO.Exceptions import ClientDisconnected

from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_core.launch import records, workspace
from motoko_core.launch.queue import WaitingRuns
from motoko_core.session import transact
from motoko_core.states import ACTIVE, CREATED, FAILURES, is_active
from motoko_core.study.changes import Changes
from motoko_core.study.feed import ChangeFeed, feed_of, fill_indexes

if TYPE_CHECKING:
    from motoko_core.study.pulse import Pulse
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")
T = TypeVar("T")

#: Runs in one transaction.
_BATCH = 200
#: How often the launcher looks for itself, whatever is announced.
_SAFETY_S = 10.0
#: How long a script may go on after it has said how its run ended, when the launcher is stopped.
_GRACE_S = 5.0
#: How long to wait before a server that does not answer is tried again: at first, and at most.
_RECONNECT_S = (0.1, 5.0)


class Launcher:
    """Launches the runs of some studies through one generator.

    :param keep_jobs: whether jobs go on when the launcher is stopped; otherwise they are stopped too, and
        their runs wait for the next launcher.
    :param wall_clock: seconds since 1970, which ``not_before`` of a run is compared with.
    """

    def __init__(
        self,
        managers: Sequence[TaskManager],
        generator: JobGenerator,
        *,
        keep_jobs: bool = True,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.managers = list(managers)
        self.generator = generator
        self.keep_jobs = keep_jobs
        machines = records.machine_names()
        self._waiting = {manager: WaitingRuns(manager, machines, wall_clock) for manager in managers}
        self._feeds: dict[TaskManager, ChangeFeed] = {}
        self._changes: dict[TaskManager, Changes] = {}
        self._jobs: dict[str, tuple[TaskManager, LaunchTask]] = {}
        self._tags: dict[tuple[TaskManager, int], str] = {}
        self._ends: list[Ended] = []
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until :meth:`stop` is called.

        :raises MotokoError: the generator gave up.
        """
        await fill_indexes(manager.database for manager in self.managers)
        with ExitStack() as stack:
            for manager in self.managers:
                feed = self._feeds[manager] = stack.enter_context(feed_of(manager.database))
                changes = self._changes[manager] = stack.enter_context(feed.changes(self._wake.set))
                changes.put(rescan=True)
            listener = asyncio.create_task(self._listen())
            try:
                await self._recover()
                await self._work(listener)
            except ClientDisconnected:
                if not self._stopping:
                    raise
                logger.warning("a server does not answer; the next launcher finds out how the jobs ended")
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _work(self, listener: asyncio.Task[None]) -> None:
        while not self._stopping:
            self._take_in()
            await self._settle()
            launched = [manager for manager in self.managers if await self._launch(manager)]
            # The others are asked first next time: one study's runs do not take every free processor.
            self.managers.sort(key=launched.__contains__)
            if not launched and not self._ends:
                await self._sleep(listener)
            if listener.done():
                listener.result()
                raise MotokoError("the generator stopped telling which jobs end")
        await self._hear()
        await self._settle()
        if not self.keep_jobs:
            await self._cancel_everything()

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stop.set()
        self._wake.set()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def _take_in(self) -> None:
        """Take in which runs have changed."""
        for manager, changes in self._changes.items():
            if self._feeds[manager].is_reading:
                continue  # the index is being written; we are woken when it is done
            batch = changes.take()
            if batch.rescan:
                self._waiting[manager].fill()
            else:
                self._waiting[manager].changed(batch.changes)

    async def _sleep(self, listener: asyncio.Task[None]) -> None:
        waker = asyncio.create_task(self._wake.wait())
        try:
            timeout = min(_SAFETY_S, *(waiting.due_in_s() for waiting in self._waiting.values()))
            done, _ = await asyncio.wait(
                {waker, listener}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waker.cancel()
        self._wake.clear()
        if not done and timeout == _SAFETY_S:
            for changes in self._changes.values():
                changes.put(rescan=True)

    async def _listen(self) -> None:
        async for ended in self.generator.ended():
            self._ends.append(ended)
            self._wake.set()

    async def _hear(self) -> None:
        """Let the ends that the generator knows already arrive."""
        for _ in range(10):  # turns of the loop: the system's notice, the generator's queue, the listener
            await asyncio.sleep(0)

    # ------------------------------------------------------------------ launching

    async def _launch(self, manager: TaskManager) -> bool:
        """Launch what can be launched; answer whether there was anything."""
        if self._stopping:
            return False
        wanted = self._waiting[manager].take(self.generator.room(), _BATCH)
        if not wanted:
            return False
        tags = records.new_tags(manager, wanted)
        claimed = await self._write(manager, "claim", lambda: records.claim(manager, tags))
        await self._end_earlier(manager, claimed)
        tasks = await self._prepare(manager, {run_id: tags[run_id] for run_id in claimed})
        intents = dict(zip((task.tag for task in tasks), self.generator.intents(tasks), strict=True))
        ready = {task.run_id: (task.tag, intents[task.tag]) for task in tasks}
        state = self.generator.launched_state
        ours = await self._write(manager, "launch", lambda: records.launched(manager, ready, state))
        batch = [task for task in tasks if task.run_id in ours]
        for task in batch:
            self._follow(manager, task)
            logger.info("launching %s in %s", task.task, task.directory)
        if batch:
            answers = await self.generator.submit(batch)
            await self._note(manager, {task.tag: task for task in batch}, answers, intents)
        return True

    async def _end_earlier(self, manager: TaskManager, run_ids: Sequence[int]) -> None:
        """Stop jobs whose runs were reset while they ran: two executions would share one directory."""
        tags = [tag for run_id in run_ids if (tag := self._tags.get((manager, run_id)))]
        if tags:
            logger.info("stopping %d jobs: their runs were reset, and start again", len(tags))
            await self.generator.cancel(tags)

    def _follow(self, manager: TaskManager, task: LaunchTask) -> None:
        self._jobs[task.tag] = (manager, task)
        self._tags[manager, task.run_id] = task.tag

    def _unfollow(self, tag: str) -> tuple[TaskManager, LaunchTask] | None:
        found = self._jobs.pop(tag, None)
        if found and self._tags.get((found[0], found[1].run_id)) == tag:
            del self._tags[found[0], found[1].run_id]
        return found

    async def _prepare(self, manager: TaskManager, tags: Mapping[int, str]) -> list[LaunchTask]:
        def work() -> tuple[list[LaunchTask], dict[int, tuple[Ended, str]]]:
            good, bad = [], {}
            for run_id, tag in tags.items():
                try:
                    task = records.task_of(manager, run_id)
                    if task.tag == tag:  # else somebody has reset it already
                        records.prepare(manager, task)
                        good.append(task)
                except (MotokoError, OSError) as error:
                    bad[run_id] = _refused(tag), str(error)
            return good, bad

        good, bad = await self._write(manager, "prepare", work)
        await self._refuse(manager, bad)
        return good

    async def _note(
        self,
        manager: TaskManager,
        tasks: Mapping[str, LaunchTask],
        answers: Sequence[Submitted],
        intents: Mapping[str, Mapping[str, Any]],
    ) -> None:
        handles, bad = {}, {}
        for answer in answers:
            run_id = tasks[answer.tag].run_id
            if answer.handle is not None:
                if answer.handle != intents[answer.tag]:  # that is written down already
                    handles[run_id] = (answer.tag, answer.handle)
            else:
                self._unfollow(answer.tag)
                bad[run_id] = _refused(answer.tag), answer.error or "the generator gave no reason"
        if handles:
            await self._write(manager, "note", lambda: records.submitted(manager, handles))
        await self._refuse(manager, bad)

    async def _refuse(self, manager: TaskManager, ends: Mapping[int, tuple[Ended, str]]) -> None:
        for run_id, (_, error) in ends.items():
            logger.error("%s.%d cannot be launched: %s", manager.study, run_id, error)
        if ends:
            await self._write(manager, "refuse", lambda: records.settle(manager, ends))

    # ------------------------------------------------------------------ ending

    async def _settle(self) -> None:
        """Write the ends that the generator has told, in one transaction per study."""
        ends, self._ends = self._ends, []
        by_manager: dict[TaskManager, dict[int, tuple[Ended, str]]] = {}
        for end in ends:
            followed = self._unfollow(end.tag)
            if followed is None:
                continue
            manager, task = followed
            good = end.exit_code == 0 and end.reason is None
            stderr = "" if good else workspace.stderr_tail(task.stderr)
            if end.message:
                stderr = f"{stderr.rstrip()}\n{end.message}".lstrip()
            by_manager.setdefault(manager, {})[task.run_id] = (end, stderr)
            logger.info("%s ended: exit code %s %s", task.task, end.exit_code, end.reason or "")
        for manager, found in by_manager.items():
            await self._write(manager, "settle", partial(records.settle, manager, found))

    async def _let_end(self) -> None:
        """Wait for the jobs whose runs are over already: their scripts are about to exit."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _GRACE_S
        current = [asyncio.ensure_future(feed.current()) for feed in self._feeds.values()]
        await asyncio.wait(current, timeout=_GRACE_S)
        for waiting in current:
            waiting.cancel()
        while True:
            await self._settle()
            over = [tag for tag, (manager, task) in self._jobs.items() if _is_over(manager, task)]
            if not over or loop.time() >= end:
                return
            self._wake.clear()
            waker = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait({waker}, timeout=end - loop.time())
            waker.cancel()

    async def _cancel_everything(self) -> None:
        await self._let_end()
        if not self._jobs:
            return
        logger.info("stopping %d jobs; their runs wait for the next launcher", len(self._jobs))
        await self.generator.cancel(list(self._jobs))
        await self._hear()
        # One that ended by itself at the last moment is not to be executed again.
        self._ends = [end for end in self._ends if end.reason != "CANCELLED"]
        await self._settle()
        by_manager: dict[TaskManager, dict[int, str]] = {}
        for tag, (manager, task) in self._jobs.items():
            by_manager.setdefault(manager, {})[task.run_id] = tag
        for manager, tags in by_manager.items():
            await self._write(manager, "hand back", partial(records.hand_back, manager, tags))

    # ------------------------------------------------------------------ recovery

    async def _recover(self) -> None:
        """Take over what an earlier launcher had in hand."""
        # A script may have said itself that it failed: how it ended is told as well.
        states = (ACTIVE - {CREATED}) | FAILURES
        for manager in self.managers:
            ids = sorted(manager.database.index.candidates(states=frozenset(states)))
            tags = await self._write(manager, "look", partial(records.in_hand, manager, ids))
            back: dict[int, str] = {}
            found: dict[int, LaunchTask] = {}
            for run_id, tag in tags.items():
                try:
                    found[run_id] = await self._write(
                        manager, "look", partial(records.task_of, manager, run_id)
                    )
                except MotokoError:
                    back[run_id] = tag  # what is wrong with it is said when it is launched again
            handles = [(task, records.handle_of(task.options).get("data")) for task in found.values()]
            followed = await self.generator.adopt(handles) if handles else set()
            for run_id, task in found.items():
                if task.tag in followed:
                    self._follow(manager, task)
                else:
                    back[run_id] = task.tag
            if followed:
                logger.info("%s: %d jobs are followed again", manager.study, len(followed))
            if back:
                logger.info("%s: %d runs were claimed and never started", manager.study, len(back))
                await self._write(manager, "hand back", partial(records.hand_back, manager, back))

    async def _write(self, manager: TaskManager, what: str, work: Callable[[], T]) -> T:
        """Transact; while the server does not answer, try again.

        What ``work`` does may be done already when it is called again: nobody knows what became of a commit
        when the connection was lost.

        :raises ClientDisconnected: the server does not answer, and the launcher is to stop.
        """
        delay_s, longest_s = _RECONNECT_S
        pulse = manager.database.pulse
        while True:
            if not pulse.is_fresh:
                await self._answered(pulse)
            try:
                return transact(f"launcher of {manager.study}: {what}", work)
            except ClientDisconnected:
                if self._stopping:
                    raise
                pulse.lost()
                await asyncio.sleep(delay_s)
                delay_s = min(longest_s, 2 * delay_s)

    async def _answered(self, pulse: Pulse) -> None:
        """Wait for a server: nothing synchronous is begun while it is silent, or the loop would hang."""
        answering = asyncio.ensure_future(pulse.answered())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await asyncio.wait({answering}, timeout=_GRACE_S)
            if not answering.done():
                raise ClientDisconnected("the server does not answer")
            answering.result()
        finally:
            answering.cancel()
            stopping.cancel()


def _refused(tag: str) -> Ended:
    return Ended(tag=tag, exit_code=None, reason="SUBMIT")


def _is_over(manager: TaskManager, task: LaunchTask) -> bool:
    """Whether the run of a job has got its last state."""
    index = manager.database.index
    return not is_active(index.rows.value(task.run_id, "state"))
