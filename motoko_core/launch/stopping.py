"""Stopping jobs that no launcher looks after, as a launcher that is there for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs
from ZODB.POSException import StorageError

from motoko_core.entries import CANCEL, HANDLE, handle_of, state_of
from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask
from motoko_core.launch import endings
from motoko_core.launch.generators import generator_name, other_service
from motoko_core.launch.recovery import OtherService, by_generator, look, with_handles, with_settings
from motoko_core.locks import held
from motoko_core.session import transact
from motoko_core.states import is_active
from motoko_core.study.runs import SessionRuns
from motoko_core.study.snapshot import snapshot
from motoko_core.study.starting import start_servers

if TYPE_CHECKING:
    from motoko_core.launch.service import Service
    from motoko_core.study.server import Server
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

CANCELLED = "CANCELLED"
#: Run id, how its job ended, and the end of its standard error.
_End: TypeAlias = "tuple[int, Ended, str]"
#: How long a script may go on after it has said how its run ended.
_GRACE_S = 5.0


@attrs.define
class Stopped:
    """What has become of the jobs of some studies.

    :param count: how many jobs were stopped.
    :param kept: generator -> how many of its jobs go on.
    :param troubles: why it could not be found out, or done.
    :param started: servers that were started for it.
    """

    count: int = 0
    kept: dict[str, int] = attrs.field(factory=dict)
    troubles: list[str] = attrs.field(factory=list)
    started: list[Server] = attrs.field(factory=list)


def stop_local(workflow: Workflow, managers: Sequence[TaskManager], *, keep: bool = False) -> Stopped:
    """Stop the jobs that are processes on this machine; their runs wait for the next launcher.

    No launcher may be at work. Servers are started as far as they are needed; they stay up.

    :param keep: only see what goes on.
    """
    stopped = Stopped()
    for manager in managers:
        if not manager.database.exists:
            continue
        try:
            _stop_local(workflow, manager, keep, stopped)
        except (MotokoError, StorageError, OSError) as error:
            stopped.troubles.append(f"the jobs of {manager.study} are left alone: {error}")
    return stopped


def _stop_local(workflow: Workflow, manager: TaskManager, keep: bool, stopped: Stopped) -> None:
    settings = workflow.configuration.task_managers[manager.study]
    with snapshot(manager.study, manager.study_config, settings.host) as content:
        runs = {run.id: dict(run.entries) for run in content.runs() if run.entries.get(HANDLE)}
    by_name: dict[str, list[int]] = {}
    for run_id, entries in runs.items():
        name = handle_of(entries).get("generator") or generator_name(workflow, manager)
        by_name.setdefault(name, []).append(run_id)
    local: dict[str, list[int]] = {}
    for name, run_ids in by_name.items():
        try:
            kind = workflow.plugins.generator(name, workflow.configuration.directory)
        except MotokoError as error:
            stopped.troubles.append(f"the jobs of {manager.study} that {name} has are left alone: {error}")
            continue
        if keep or not kind.on_this_machine:
            stopped.kept[name] = stopped.kept.get(name, 0) + len(run_ids)
        else:
            local[name] = run_ids
    if not local:
        return
    stopped.started += start_servers([manager.database.server])
    with held(manager.launcher_lock, f"a launcher of study {manager.study!r} is running", ""):
        other = partial(other_service, workflow)
        for name, run_ids in local.items():
            # (motoko.yaml's own generator may be one that cannot be used.)
            service = other(manager, name)
            stopped.count += asyncio.run(stop(manager, service, run_ids, other, hand_back=True))


async def stop(
    manager: TaskManager,
    service: Service,
    run_ids: Sequence[int],
    other: OtherService,
    *,
    hand_back: bool = False,
    timeout_s: float = 30.0,
) -> int:
    """Stop the jobs of some runs, and write how they ended; whoever calls holds the launcher's lock.

    Jobs that are still there after ``timeout_s`` seconds are left to the next launcher. A generator of which
    one job may execute several runs answers for all runs in hand.

    :param other: makes the service for jobs that another generator has got.
    :param hand_back: the runs wait for the next launcher; otherwise they fail with the reason CANCELLED.
    :return: how many jobs were stopped, those that ended by themselves not counted.
    """
    what = f"stop jobs of {manager.study}"
    tasks = transact(what, lambda: look(manager, run_ids, SessionRuns(manager.database)))
    count = 0
    for name, some in by_generator(tasks, service.name).items():
        chosen = service if name == service.name else other(manager, name)
        generator, wanted = chosen.generator, {task.tag for task in some}
        if generator.shares_jobs:
            manager.database.index.refresh()
            in_hand = with_handles(manager)
            beside = transact(what, lambda ids=in_hand: look(manager, ids, SessionRuns(manager.database)))  # type: ignore[misc]
            others = by_generator(beside, service.name).get(name, [])
            some = [*some, *(task for task in others if task.tag not in wanted)]
        some = with_settings(some, chosen)
        ends: list[_End] = []
        try:
            handles = [(task, handle_of(task.options).get("data")) for task in some]
            followed = await generator.adopt(handles)
            if hand_back:
                marked = {task.run_id: task.tag for task in some if task.tag in wanted}
                transact(what, lambda m=marked: endings.stopping(SessionRuns(manager.database), m))  # type: ignore[misc]
            ends += [_never(task, task.tag in wanted) for task in some if task.tag not in followed]
            found = await _stop(generator, {t.tag: t for t in some if t.tag in followed}, wanted, timeout_s)
            count += sum(end.reason == CANCELLED and end.tag in wanted for _, end, _ in found)
            ends += found
        finally:
            try:
                transact(what, partial(_write, manager, ends, wanted, hand_back))
            finally:
                await generator.close()
    return count


async def _stop(
    generator: JobGenerator, tasks: Mapping[str, LaunchTask], wanted: Set[str], timeout_s: float
) -> list[_End]:
    """Stop those of the jobs that are wanted; answer how they ended, and others that ended meanwhile."""
    ends: list[Ended] = []
    stop = wanted & tasks.keys()
    # Their scripts are about to exit, unless it was a cancellation that has said so.
    over = {
        tag
        for tag, task in tasks.items()
        if tag in stop and not is_active(state_of(task.options)) and task.options.get(CANCEL) != tag
    }
    async with _listening(generator, stop, ends) as all_ended:
        await generator.cancel(sorted(stop - over))
        if over:
            await asyncio.wait({all_ended}, timeout=_GRACE_S)
            await generator.cancel(sorted(over - {end.tag for end in ends}))
        await asyncio.wait({all_ended}, timeout=timeout_s)
    return [
        (tasks[end.tag].run_id, end, endings.told(end, tasks[end.tag])) for end in ends if end.tag in tasks
    ]


def _never(task: LaunchTask, is_wanted: bool) -> _End:
    """One that was launched, and never started."""
    end = Ended(tag=task.tag, exit_code=None, reason=CANCELLED if is_wanted else None, again=not is_wanted)
    return task.run_id, end, ""


def _write(manager: TaskManager, ends: Sequence[_End], wanted: Set[str], hand_back: bool) -> None:
    back = {run_id: end.tag for run_id, end, _ in ends if hand_back and end.reason == CANCELLED}
    runs = SessionRuns(manager.database)
    endings.hand_back(runs, back)
    others = {run_id: (end, told) for run_id, end, told in ends if run_id not in back}
    endings.settle(runs, others, has_stopped=wanted.__contains__)


@asynccontextmanager
async def _listening(
    generator: JobGenerator, tags: Collection[str], ends: list[Ended]
) -> AsyncIterator[asyncio.Task[None]]:
    """Gather how jobs end; the context gets a task that is done when all of ``tags`` have."""
    listener = asyncio.create_task(_listen(generator, tags, ends))
    try:
        yield listener
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def _listen(generator: JobGenerator, tags: Iterable[str], ends: list[Ended]) -> None:
    left = set(tags)
    if not left:
        return
    async for end in generator.ended():
        ends.append(end)
        left.discard(end.tag)
        if not left:
            return
