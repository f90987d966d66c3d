"""Stopping jobs that no launcher looks after, as a launcher that is there for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask
from motoko_core.launch import records, workspace
from motoko_core.session import transact
from motoko_core.states import is_active

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

CANCELLED = "CANCELLED"
#: Run id, how its job ended, and the end of its standard error.
_End: TypeAlias = "tuple[int, Ended, str]"
#: How long a script may go on after it has said how its run ended.
_GRACE_S = 5.0


async def stop(
    manager: TaskManager,
    generator: JobGenerator,
    run_ids: Sequence[int],
    settings: Any = None,
    *,
    hand_back: bool = False,
    timeout_s: float = 30.0,
) -> int:
    """Stop the jobs of some runs, and write how they ended; whoever calls holds the launcher's lock.

    Jobs that are still there after ``timeout_s`` seconds are left to the next launcher.

    :param hand_back: the runs wait for the next launcher; otherwise they fail with the reason CANCELLED.
    :return: how many jobs were stopped, those that ended by themselves not counted.
    """
    what = f"stop jobs of {manager.study}"
    tasks, wrong = transact(what, partial(_in_hand, manager, run_ids, settings))
    ends = [_never(run_id, tag) for run_id, tag in wrong.items()]
    followed: set[str] = set()
    try:
        if tasks:
            handles = [(task, records.handle_of(task.options).get("data")) for task in tasks.values()]
            followed = await generator.adopt(handles)
            ends += [_never(task.run_id, tag) for tag, task in tasks.items() if tag not in followed]
        ends += await _stop(generator, {tag: tasks[tag] for tag in followed}, timeout_s)
    finally:
        await generator.close()
        transact(what, partial(_write, manager, ends, hand_back))
    return sum(end.reason == CANCELLED and end.tag in followed for _, end, _ in ends)


async def _stop(generator: JobGenerator, tasks: Mapping[str, LaunchTask], timeout_s: float) -> list[_End]:
    ends: list[Ended] = []
    # Their scripts are about to exit.
    over = {tag for tag, task in tasks.items() if not is_active(task.options.get("state"))}
    async with _listening(generator, tasks, ends) as all_ended:
        await generator.cancel(sorted(tasks.keys() - over))
        if over:
            await asyncio.wait({all_ended}, timeout=_GRACE_S)
            await generator.cancel(sorted(over - {end.tag for end in ends}))
        await asyncio.wait({all_ended}, timeout=timeout_s)
    return [(tasks[end.tag].run_id, end, _told(end, tasks[end.tag])) for end in ends]


def _never(run_id: int, tag: str) -> _End:
    """One that was claimed, and never started."""
    return run_id, Ended(tag=tag, exit_code=None, reason=CANCELLED), ""


def _in_hand(
    manager: TaskManager, run_ids: Iterable[int], settings: Any
) -> tuple[dict[str, LaunchTask], dict[int, str]]:
    """The tasks by their tags, and the tags of runs that lack something, which is said at their launch."""
    tasks, wrong = {}, {}
    for run_id, tag in records.in_hand(manager, run_ids).items():
        try:
            tasks[tag] = attrs.evolve(records.task_of(manager, run_id), settings=settings)
        except MotokoError:
            wrong[run_id] = tag
    return tasks, wrong


def _told(end: Ended, task: LaunchTask) -> str:
    good = end.exit_code == 0 and end.reason is None
    stderr = "" if good else workspace.stderr_tail(task.stderr)
    return f"{stderr.rstrip()}\n{end.message}".strip()


def _write(manager: TaskManager, ends: Sequence[_End], hand_back: bool) -> None:
    back = {run_id: end.tag for run_id, end, _ in ends if hand_back and end.reason == CANCELLED}
    records.hand_back(manager, back)
    records.settle(manager, {run_id: (end, told) for run_id, end, told in ends if run_id not in back})


@asynccontextmanager
async def _listening(
    generator: JobGenerator, tags: Collection[str], ends: list[Ended]
) -> AsyncIterator[asyncio.Task[None]]:
    """Gather how some jobs end; the context gets a task that is done when all have."""
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
        if end.tag in left:
            left.remove(end.tag)
            ends.append(end)
        if not left:
            return
