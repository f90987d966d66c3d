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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator, Submitted
from motoko_core.launch import endings, records
from motoko_core.launch.listening import Listeners
from motoko_core.launch.pace import Pace
from motoko_core.launch.queue import WaitingRuns
from motoko_core.launch.recovery import OtherService, recover
from motoko_core.launch.service import InHand, Service
from motoko_core.launch.shutdown import Shutdown
from motoko_core.launch.unwanted import Unwanted
from motoko_core.launch.writing import Turns, Writer
from motoko_core.study.changes import Changes
from motoko_core.study.feed import ChangeFeed, feed_of, fill_indexes

if TYPE_CHECKING:
    from motoko_core.study.runs import Runs
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")

#: Runs in one transaction.
_BATCH = 500
#: How often the launcher looks for itself, whatever is announced.
_SAFETY_S = 10.0
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
        self.managers = list(services)
        self.keep_jobs = keep_jobs
        machines = records.machine_names()
        self._waiting = {manager: WaitingRuns(manager, machines, wall_clock) for manager in services}
        self._feeds: dict[TaskManager, ChangeFeed] = {}
        self._changes: dict[TaskManager, Changes] = {}
        self._pace = Pace()
        self._launches = itertools.count(1)
        self._last_launch = dict.fromkeys(self.managers, 0)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._writer = Writer(self._stop)
        self._turns = Turns(self._stop, self._wake.set)
        self._in_hand = InHand()
        self._listeners = Listeners(self._in_hand, self._wake)
        self._unwanted = Unwanted(self._in_hand, self._look_at_everything)

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
                    self._listeners.add(service.generator)
                    await self._turns.take(manager, self._recover(manager, service), _RECOVERY_PATIENCE_S)
                await self._work()
                await self._finish()
            finally:
                tasks = [*self._listeners.tasks(), *self._unwanted.tasks(), *self._turns.tasks()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._listeners.close()

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stop.set()
        self._wake.set()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def _other_service(self, manager: TaskManager, name: str) -> Service:
        """The service for jobs that were submitted when motoko.yaml named another generator."""
        if self._other is None:
            raise MotokoError("it is not the one of this launcher")
        service = self._other(manager, name)
        if name not in self._others:
            self._others[name] = service.generator
            self._listeners.add(service.generator)
        return attrs.evolve(service, generator=self._others[name])

    async def _work(self) -> None:
        while not self._stopping:
            self._pace.begin()
            self._turns.take_back()
            self._take_in()
            ended = self._listeners.count()
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
            elif not self._listeners.any_but(self._turns):
                await self._sleep()
            self._listeners.check()

    async def _finish(self) -> None:
        await self._turns.end(_RECOVERY_PATIENCE_S)
        await self._listeners.hear()
        end = Shutdown(self.managers, self._in_hand, self._listeners, self._writer, self._turns, self._wake)
        await end.settle()
        if not self.keep_jobs:
            await end.let_end(self._feeds)
            await end.stop_jobs()

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
            self._unwanted.look(manager, batch)

    async def _sleep(self) -> None:
        waker = asyncio.create_task(self._wake.wait())
        try:
            due = [w.due_in_s() for manager, w in self._waiting.items() if manager not in self._turns]
            timeout = min([_SAFETY_S, *due])
            done, _ = await asyncio.wait(
                {waker, *self._listeners.tasks()}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waker.cancel()
        self._wake.clear()
        if not done and timeout == _SAFETY_S:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        for changes in self._changes.values():
            changes.put(rescan=True)

    # ------------------------------------------------------------------ rounds

    async def _recover(self, manager: TaskManager, service: Service) -> bool:
        await recover(manager, service, self._other_service, self._in_hand, self._writer)
        # What was wanted meanwhile, if it took long, no generator has heard.
        self._unwanted.forget(self._in_hand.tags(manager).values())
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
            self._unwanted.stop_reset(manager, {in_hand[run_id] for run_id in reset if run_id in in_hand})
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

    def _ends_of(self, manager: TaskManager) -> dict[int, tuple[Ended, str]]:
        """Take the ends of one study's runs, which may wait for just that: they were reset meanwhile."""
        found = self._listeners.take(manager)
        self._unwanted.forget(end.tag for end, _ in found.values())
        for run_id in found:
            self._waiting[manager].offer(run_id)
        return found
