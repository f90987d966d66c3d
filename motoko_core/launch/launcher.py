"""The launcher: from a CREATED run to a finished one.

commit the launched state with a tag and what finds the job again -> write the run directories -> submit ->
commit the handles -> follow -> settle. After a crash at any point the next launcher finds out from the
database, the run directories and the generator where each run stands.

A round of one study does what there is to do of all this in one commit: what has ended is settled, what waits
is launched.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from ZEO.Exceptions import ClientDisconnected

from motoko_core.entries import CANCEL, tag_of
from motoko_core.errors import DatabaseFault, MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_core.launch import endings, records
from motoko_core.launch.pace import Pace
from motoko_core.launch.queue import WaitingRuns
from motoko_core.launch.recovery import OtherService, recover
from motoko_core.launch.service import InHand, Service
from motoko_core.launch.writing import Turns, Writer
from motoko_core.states import CREATED, is_active
from motoko_core.study.changes import Batch, Changes
from motoko_core.study.feed import ChangeFeed, feed_of, fill_indexes

if TYPE_CHECKING:
    from motoko_core.study.runs import Runs
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")

#: Runs in one transaction.
_BATCH = 500
#: How often the launcher looks for itself, whatever is announced.
_SAFETY_S = 10.0
#: How long a script may go on after it has said how its run ended, when the launcher is stopped.
_GRACE_S = 5.0
#: How long the other studies wait for one whose server does not let it go on: in a round, and when the
#: launcher starts or stops. (What is at work is to be known before anything is launched.)
_PATIENCE_S = 0.5
_RECOVERY_PATIENCE_S = 10.0


class Launcher:
    """Launches the runs of some studies.

    :param services: task manager -> how its runs are launched.
    :param other: makes a service for jobs of an earlier launcher which another generator has got.
    :param keep_jobs: whether jobs go on when the launcher is stopped; otherwise they are stopped too, and
        their runs wait for the next launcher.
    :param wall_clock: seconds since 1970, which ``NOT_BEFORE`` of a run is compared with.
    """

    def __init__(
        self,
        services: Mapping[TaskManager, Service],
        *,
        other: OtherService | None = None,
        keep_jobs: bool = True,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.services = dict(services)
        self._other = other
        self._others: dict[str, JobGenerator] = {}
        self._listeners: dict[JobGenerator, asyncio.Task[None]] = {}
        self.managers = list(services)
        self.keep_jobs = keep_jobs
        machines = records.machine_names()
        self._waiting = {manager: WaitingRuns(manager, machines, wall_clock) for manager in services}
        self._feeds: dict[TaskManager, ChangeFeed] = {}
        self._changes: dict[TaskManager, Changes] = {}
        self._in_hand = InHand()
        self._pace = Pace()
        self._ends: dict[TaskManager, list[Ended]] = {}
        #: Tags whose cancellation was asked for, and the cancellations under way.
        self._cancelled: set[str] = set()
        self._launches = itertools.count(1)
        self._last_launch = dict.fromkeys(self.managers, 0)
        #: Jobs that were stopped with the launcher: the generators know which of them ended by themselves.
        self._has_stopped: set[str] = set()
        self._cancelling: set[asyncio.Future[None]] = set()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._writer = Writer(self._stop)
        self._turns = Turns(self._stop, self._wake.set)

    async def run(self) -> None:
        """Work until :meth:`stop` is called.

        :raises MotokoError: a generator gave up.
        """
        await fill_indexes(manager.database for manager in self.managers)
        with ExitStack() as stack:
            for manager in self.managers:
                feed = self._feeds[manager] = stack.enter_context(feed_of(manager.database))
                changes = self._changes[manager] = stack.enter_context(feed.changes(self._wake.set))
                changes.put(rescan=True)
            try:
                for manager, service in self.services.items():
                    self._hear_of(service.generator)
                    await self._turns.take(manager, self._recover(manager, service), _RECOVERY_PATIENCE_S)
                await self._work()
                await self._finish()
            finally:
                tasks: set[asyncio.Future[Any]] = {*self._listeners.values(), *self._cancelling}
                tasks.update(self._turns.tasks())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for generator in self._listeners:
                    await generator.close()

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stop.set()
        self._wake.set()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def _hear_of(self, generator: JobGenerator) -> None:
        if generator not in self._listeners:
            self._listeners[generator] = asyncio.create_task(self._listen(generator))

    def _other_service(self, manager: TaskManager, name: str) -> Service:
        """The service for jobs that were submitted when motoko.yaml named another generator."""
        if self._other is None:
            raise MotokoError("it is not the one of this launcher")
        service = self._other(manager, name)
        if name not in self._others:
            self._others[name] = service.generator
            self._hear_of(service.generator)
        return attrs.evolve(service, generator=self._others[name])

    async def _work(self) -> None:
        while not self._stopping:
            self._pace.begin()
            self._turns.take_back()
            self._take_in()
            ended = sum(map(len, self._ends.values()))
            busy = [
                manager
                for manager in self.managers
                if manager not in self._turns
                and await self._turns.take(manager, self._round(manager), _PATIENCE_S)
            ]
            # Who has launched last is asked last: one study does not take every processor that gets free.
            self.managers.sort(key=self._last_launch.__getitem__)
            if busy:
                window_s = self._pace.window_s(ended, len(self._in_hand))
                if window_s:
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), window_s)
            elif not any(ends for manager, ends in self._ends.items() if manager not in self._turns):
                await self._sleep()
            for listener in self._listeners.values():
                if listener.done():
                    listener.result()
                    raise MotokoError("the generator stopped telling which jobs end")

    async def _finish(self) -> None:
        await self._turns.end(_RECOVERY_PATIENCE_S)
        await self._hear()
        await self._settle()
        if not self.keep_jobs:
            await self._cancel_everything()

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
            self._stop_unwanted(manager, batch)

    async def _sleep(self) -> None:
        waker = asyncio.create_task(self._wake.wait())
        try:
            due = [w.due_in_s() for manager, w in self._waiting.items() if manager not in self._turns]
            timeout = min([_SAFETY_S, *due])
            done, _ = await asyncio.wait(
                {waker, *self._listeners.values()}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waker.cancel()
        self._wake.clear()
        if not done and timeout == _SAFETY_S:
            for changes in self._changes.values():
                changes.put(rescan=True)

    async def _listen(self, generator: JobGenerator) -> None:
        async for ended in generator.ended():
            if manager := self._in_hand.manager_of(ended.tag):
                self._ends.setdefault(manager, []).append(ended)
                self._wake.set()

    async def _hear(self) -> None:
        """Let the ends that the generators know already arrive."""
        for _ in range(10):  # turns of the loop: the system's notice, the generator's queue, the listener
            await asyncio.sleep(0)

    # ------------------------------------------------------------------ rounds

    async def _recover(self, manager: TaskManager, service: Service) -> bool:
        await recover(manager, service, self._other_service, self._in_hand, self._writer)
        # What was wanted meanwhile, if it took long, no generator has heard.
        self._cancelled.difference_update(self._in_hand.tags(manager).values())
        self._changes[manager].put(rescan=True)  # what is in hand now may be unwanted
        return True

    async def _round(self, manager: TaskManager) -> bool:
        """Do what there is to do for one study, in one commit; answer whether there was anything."""
        service = self.services[manager]
        ends = self._ends_of(manager)
        wanted = self._wanted(manager)
        if not (ends or wanted):
            return False
        wanted = await self._without_earlier(manager, wanted)
        tags = records.new_tags(manager, wanted)

        def work(runs: Runs) -> tuple[list[records.Launch], dict[int, str]]:
            if ends:
                endings.settle(runs, ends)
            return records.launch(manager, runs, tags, service) if tags else ([], {})

        launched, refused = await self._writer.write(manager, "round", work)
        for run_id, error in refused.items():
            logger.error("%s.%d cannot be launched: %s", manager.study, run_id, error)
        for launch in launched:
            self._in_hand.add(manager, launch.task, service.generator)
        if launched:
            self._last_launch[manager] = next(self._launches)
            await self._submit(manager, launched)
        return True

    def _wanted(self, manager: TaskManager) -> list[int]:
        """Runs to be launched: a fair share of those that the generator has room for."""
        if self._stopping:
            return []
        service = self.services[manager]
        limit, room = _BATCH, service.generator.room()
        if room is not None:
            sharers = [m for m, s in self.services.items() if s.generator is service.generator]
            hungry = sum(bool(self._waiting[sharer]) for sharer in sharers)
            # (What is left over goes round next time, to those who have launched least lately.)
            limit = min(limit, room, max(1, room // max(1, hungry)))
        return self._in_hand.take(service, self._waiting[manager], manager, limit)

    async def _submit(self, manager: TaskManager, launched: Sequence[records.Launch]) -> None:
        """Write the directories, submit, and write down what came of it."""
        batch: list[records.Launch] = []
        answers: list[Submitted] = []
        for launch in launched:
            try:
                records.prepare(launch)
                batch.append(launch)
            except Exception as error:  # noqa: BLE001 - a name that cannot be encoded, say
                answers.append(Submitted(tag=launch.task.tag, error=str(error)))
        if batch:
            tasks = [launch.task for launch in batch]
            logger.info("launching %s", ", ".join(task.task for task in tasks))
            answers += await self.services[manager].generator.submit(tasks)
        await self._note(manager, answers, {launch.task.tag: launch for launch in launched})

    async def _without_earlier(self, manager: TaskManager, run_ids: Sequence[int]) -> list[int]:
        """Leave out the runs in hand: two executions would share one directory.

        Of one in hand the index may have the state that it had before it was launched. If it was reset
        indeed, and its handle was removed (``motoko clean --force``), its job is stopped and waited for.
        """
        in_hand = self._in_hand.tags(manager)
        doubtful = [run_id for run_id in run_ids if run_id in in_hand]
        if doubtful:
            reset = await self._writer.write(manager, "look", partial(records.waiting, run_ids=doubtful))
            self._stop_reset(manager, {in_hand[run_id] for run_id in reset if run_id in in_hand})
        return [run_id for run_id in run_ids if run_id not in doubtful]

    async def _note(
        self, manager: TaskManager, answers: Sequence[Submitted], launched: Mapping[str, records.Launch]
    ) -> None:
        handles, refused = {}, {}
        for answer in answers:
            launch = launched[answer.tag]
            task = launch.task
            if answer.handle is None:
                self._in_hand.remove(answer.tag)
                error = answer.error or "the generator gave no reason"
                refused[task.run_id] = Ended(tag=answer.tag, exit_code=None, reason="SUBMIT"), error
                logger.error("%s cannot be launched: %s", task.task, error)
            elif answer.handle != launch.intent:  # else it is written down already
                handles[task.run_id] = (answer.tag, answer.handle)
        if handles or refused:

            def work(runs: Runs) -> None:
                records.submitted(runs, handles)
                endings.settle(runs, refused)

            await self._writer.write(manager, "note", work)

    # ------------------------------------------------------------------ ending

    def _ends_of(self, manager: TaskManager) -> dict[int, tuple[Ended, str]]:
        """Take the ends of one study's runs, with what is told of a failure."""
        found, good = {}, []
        for end in self._ends.pop(manager, []):
            job = self._in_hand.remove(end.tag)
            if job is None:
                continue
            task = job[1]
            self._cancelled.discard(end.tag)
            self._waiting[manager].offer(task.run_id)  # it may be waiting for just that
            found[task.run_id] = end, endings.told(end, task)
            if end.is_good:
                good.append(task.task)
            else:
                said = f": {end.message}" if end.message else ""
                logger.info("%s ended: exit code %s %s%s", task.task, end.exit_code, end.reason or "", said)
        if good:
            logger.info("done: %s", ", ".join(good))
        return found

    async def _write_last(self, manager: TaskManager, what: str, work: Callable[[Runs], None]) -> None:
        """Write when the launcher is to stop; one study that cannot be written keeps none of the others."""
        if manager in self._turns.given_up:
            return
        try:
            await self._writer.write(manager, what, work)
        except (ClientDisconnected, DatabaseFault) as error:
            self._turns.give_up(manager, error)

    async def _settle(self) -> None:
        """Write the ends that the generators have told, in one transaction per study."""
        for manager in self.managers:
            if found := self._ends_of(manager):
                settle = partial(endings.settle, ends=found, has_stopped=self._has_stopped.__contains__)
                await self._write_last(manager, "settle", settle)

    def _stop_unwanted(self, manager: TaskManager, batch: Batch) -> None:
        """Have those jobs stopped whose runs are to be cancelled, or were reset."""
        tags, rows = self._in_hand.tags(manager), manager.database.index.rows
        run_ids = list(tags) if batch.rescan else [c.run_id for c in batch if c.run_id in tags]
        marked, reset = set(), set()
        for run_id in run_ids:
            row, tag = rows.get(run_id), tags[run_id]
            if row is None:
                continue
            if row.get(CANCEL) == tag:
                marked.add(tag)
            # (The tag: the index may have the row of a time before it was launched.)
            elif row.get("state") == CREATED and tag_of(row) == tag:
                reset.add(tag)
        if wanted := marked - self._cancelled:
            logger.info("%s: cancelling %d jobs", manager.study, len(wanted))
            self._cancel(wanted)
        self._stop_reset(manager, reset)

    def _stop_reset(self, manager: TaskManager, tags: Set[str]) -> None:
        if wanted := tags - self._cancelled:
            logger.info(
                "%s: stopping %d jobs: their runs were reset, and start again when they have ended",
                manager.study,
                len(wanted),
            )
            self._cancel(wanted)

    def _cancel(self, tags: Set[str]) -> None:
        """Have jobs stopped. They may take their time to end, and the others go on."""
        self._cancelled |= tags
        for generator, some in self._in_hand.by_generator(tags).items():
            task = asyncio.ensure_future(generator.cancel(some))
            self._cancelling.add(task)
            task.add_done_callback(partial(self._has_cancelled, some))

    def _has_cancelled(self, tags: Sequence[str], task: asyncio.Future[None]) -> None:
        self._cancelling.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("jobs could not be stopped", exc_info=error)
            self._cancelled.difference_update(tags)
            asyncio.get_running_loop().call_later(_SAFETY_S, self._look_at_everything)

    def _look_at_everything(self) -> None:
        for changes in self._changes.values():
            changes.put(rescan=True)

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
            over = [task for manager, task in self._in_hand.tasks() if _is_over(manager, task)]
            if not over or loop.time() >= end:
                return
            self._wake.clear()
            waker = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait({waker}, timeout=end - loop.time())
            waker.cancel()

    async def _cancel_everything(self) -> None:
        await self._let_end()
        if not self._in_hand:
            return
        jobs = self._in_hand.tasks()
        logger.info("stopping %d jobs; their runs wait for the next launcher", len(jobs))
        for manager in self.managers:
            tags = {task.run_id: task.tag for m, task in jobs if m is manager}
            if tags:
                await self._write_last(manager, "stop", partial(endings.stopping, tags=tags))
        # Nobody would ever know why the jobs of the others ended: the next launcher follows them.
        stop = [task.tag for manager, task in jobs if manager not in self._turns.given_up]
        self._has_stopped.update(stop)
        for generator, some in self._in_hand.by_generator(stop).items():
            await generator.cancel(some)
        await self._hear()
        # One that ended by itself at the last moment is not to be executed again.
        stopped: set[str] = set()
        for manager, ends in self._ends.items():
            stopped.update(end.tag for end in ends if end.reason == "CANCELLED")
            self._ends[manager] = [end for end in ends if end.reason != "CANCELLED"]
        await self._settle()
        for manager in self.managers:
            await self._hand_back(manager, [t for m, t in self._in_hand.tasks() if m is manager], stopped)

    async def _hand_back(
        self, manager: TaskManager, tasks: Sequence[LaunchTask], stopped: Container[str]
    ) -> None:
        """Have the next launcher execute runs again: at once those whose jobs were stopped, and the others
        when their jobs, which have been told to stop, have ended."""
        if not tasks:
            return
        over = {task.run_id: task.tag for task in tasks if task.tag in stopped}
        ending = {task.run_id: task.tag for task in tasks if task.tag not in stopped}

        def work(runs: Runs) -> None:
            endings.hand_back(runs, over)
            endings.reset(runs, ending)

        await self._write_last(manager, "hand back", work)
        for task in tasks:
            self._in_hand.remove(task.tag)


def _is_over(manager: TaskManager, task: LaunchTask) -> bool:
    """Whether the run of a job has got its last state."""
    return not is_active(manager.database.index.rows.value(task.run_id, "state"))
