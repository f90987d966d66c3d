"""What a launcher takes over from the one before it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from motoko_core.errors import MotokoError
from motoko_core.interfaces import LaunchTask
from motoko_core.launch import records
from motoko_core.launch.service import InHand, Service
from motoko_core.launch.writing import Writer
from motoko_core.states import ACTIVE, CREATED, FAILURES

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko.launcher")


async def recover(manager: TaskManager, service: Service, in_hand: InHand, writer: Writer) -> None:
    """Follow what an earlier launcher of this study had in hand; what never began waits again."""
    # A script may have said itself that it failed: how it ended is told as well.
    states = (ACTIVE - {CREATED}) | FAILURES
    ids = sorted(manager.database.index.candidates(states=frozenset(states)))

    def look() -> tuple[dict[int, str], list[LaunchTask]]:
        tags = records.in_hand(manager, ids)
        records.fetch(manager, tags)
        tasks = []
        for run_id in tags:
            try:
                tasks.append(records.task_of(manager, run_id, service.settings))
            except MotokoError:
                continue  # what is wrong with it is said when it is launched again
        return tags, tasks

    tags, tasks = await writer.write(manager, "look", look)
    handles = [(task, records.handle_of(task.options).get("data")) for task in tasks]
    for task in tasks:
        in_hand.add(manager, task)  # before its end can be told
    followed = await service.generator.adopt(handles) if handles else set()
    for task in tasks:
        if task.tag in followed:
            del tags[task.run_id]
        else:
            in_hand.remove(task.tag)
    if followed:
        logger.info("%s: %d jobs are followed again", manager.study, len(followed))
    if tags:
        logger.info("%s: %d runs were claimed and never started", manager.study, len(tags))
        await writer.write(manager, "hand back", partial(records.hand_back, manager, tags))
