"""What a launcher takes over from the one before it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs

from motoko_core.entries import HANDLE, handle_of, state_of, tag_of
from motoko_core.errors import MotokoError
from motoko_core.interfaces import LaunchTask
from motoko_core.launch import endings, records
from motoko_core.launch.service import InHand, Service
from motoko_core.launch.writing import Writer
from motoko_core.states import CREATED, is_active

if TYPE_CHECKING:
    from motoko_core.study.runs import Runs
    from motoko_core.task_manager import TaskManager

#: Task manager and name of a generator -> the service for it; raises MotokoError if there is none.
OtherService: TypeAlias = "Callable[[TaskManager, str], Service]"

logger = logging.getLogger("motoko.launcher")


async def recover(
    manager: TaskManager, service: Service, other: OtherService, in_hand: InHand, writer: Writer
) -> None:
    """Follow what an earlier launcher of this study had in hand; what never began waits again.

    That is every run with a handle. One that its script has called finished or failed may still be at work,
    and how it failed is told when it ends; one that was reset must not start beside its earlier execution.

    :param other: makes the service for jobs that another generator has got; motoko.yaml was changed since.
    """
    ids = with_handles(manager)
    tasks = await writer.write(manager, "look", partial(look, manager, ids))
    never: dict[int, str] = {}
    for name, some in by_generator(tasks, service.name).items():
        try:
            chosen = service if name == service.name else other(manager, name)
        except MotokoError as error:
            references = ", ".join(task.task for task in some[:5])
            what = f"generator {name!r} has got them, and cannot be used now"
            logger.warning("%s are left as they are: %s: %s", references, what, error)
            continue
        some = with_settings(some, chosen)
        handles = [(task, handle_of(task.options).get("data")) for task in some]
        for task in some:
            in_hand.add(manager, task, chosen.generator)  # before its end can be told
        followed = await chosen.generator.adopt(handles)
        for task in some:
            if task.tag not in followed:
                in_hand.remove(task.tag)
                never[task.run_id] = task.tag
        if followed:
            logger.info("%s: %d jobs are followed again", manager.study, len(followed))
    if never:
        logger.info("%s: %d runs were launched and never started", manager.study, len(never))
        await writer.write(manager, "hand back", partial(endings.hand_back, tags=never))


def with_handles(manager: TaskManager) -> list[int]:
    """The runs that a launcher has in hand, by the study's index; others with such an entry are told of."""
    index, ids, foreign = manager.database.index, [], []
    with index.lock:
        for run_id in sorted(index.rows):
            if not index.rows.value(run_id, HANDLE):
                continue
            row = index.rows[run_id]
            if tag_of(row):
                ids.append(run_id)
            elif is_active(state_of(row)) and row.get("state") != CREATED:  # those are launched
                foreign.append(f"{manager.study}.{run_id}")
    if foreign:
        what = f"no launcher has written their entry {HANDLE!r}"
        logger.warning("%s are left as they are: %s", ", ".join(foreign[:5]), what)
    return ids


def by_generator(tasks: Iterable[LaunchTask], default: str) -> dict[str, list[LaunchTask]]:
    """Tasks by the name of the generator that has got them.

    :param default: the generator of those of which that is not known.
    """
    found: dict[str, list[LaunchTask]] = {}
    for task in tasks:
        name = handle_of(task.options).get("generator") or default
        found.setdefault(name, []).append(task)
    return found


def with_settings(tasks: Iterable[LaunchTask], service: Service) -> list[LaunchTask]:
    """The tasks with the options of the generator that has got them, which need not be motoko.yaml's."""
    return [attrs.evolve(task, settings=service.settings) for task in tasks]


def look(manager: TaskManager, run_ids: Iterable[int], runs: Runs) -> list[LaunchTask]:
    """The tasks of runs that a launcher has in hand, without settings yet."""
    found = records.in_hand(runs, run_ids)
    return [records.task_in_hand(manager, runs, run_id, run, tag) for run_id, run, tag in found]
