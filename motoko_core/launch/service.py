"""How the runs of one task manager are launched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from motoko_core.interfaces import JobGenerator, LaunchTask

if TYPE_CHECKING:
    from motoko_core.launch.queue import WaitingRuns
    from motoko_core.task_manager import TaskManager


@attrs.frozen(kw_only=True, eq=False)
class Service:
    """The generator of one task manager, and its limits in motoko.yaml.

    :param name: the generator's name, which is stored with each run that it gets.
    :param generator: may serve several task managers.
    :param settings: its options as they are for this task manager; None: as the generator got them.
    :param slots: processors' worth of runs side by side; None: no limit but the generator's.
    :param max_running: runs in hand at once; None: no limit.
    """

    generator: JobGenerator
    name: str = ""
    settings: Any = None
    slots: int | None = None
    max_running: int | None = None


class InHand:
    """The executions that a launcher answers for, by tag and by run."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[TaskManager, LaunchTask]] = {}
        self._generators: dict[str, JobGenerator] = {}
        self._tags: dict[TaskManager, dict[int, str]] = {}
        self._processors: dict[TaskManager, int] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, manager: TaskManager, task: LaunchTask, generator: JobGenerator) -> None:
        """Answer for an execution from now on."""
        self._generators[task.tag] = generator
        self._tasks[task.tag] = (manager, task)
        self._tags.setdefault(manager, {})[task.run_id] = task.tag
        self._processors[manager] = self._processors.get(manager, 0) + task.nproc

    def remove(self, tag: str) -> tuple[TaskManager, LaunchTask] | None:
        """Forget an execution; answer whose it was, None if it was none of ours."""
        found = self._tasks.pop(tag, None)
        if found is not None:
            manager, task = found
            del self._generators[tag]
            self._processors[manager] -= task.nproc
            if self._tags[manager].get(task.run_id) == tag:
                del self._tags[manager][task.run_id]
        return found

    def manager_of(self, tag: str) -> TaskManager | None:
        """Whose execution it is; None if it is none of ours."""
        found = self._tasks.get(tag)
        return found and found[0]

    def tags(self, manager: TaskManager) -> Mapping[int, str]:
        """Run id -> tag of its latest execution."""
        return self._tags.get(manager, {})

    def by_generator(self, tags: Iterable[str]) -> dict[JobGenerator, list[str]]:
        """Generator -> those of the executions that it has got."""
        found: dict[JobGenerator, list[str]] = {}
        for tag in sorted(tags):
            if tag in self._generators:
                found.setdefault(self._generators[tag], []).append(tag)
        return found

    def tasks(self) -> list[tuple[TaskManager, LaunchTask]]:
        """All of them."""
        return list(self._tasks.values())

    def take(self, service: Service, waiting: WaitingRuns, manager: TaskManager, limit: int) -> list[int]:
        """Runs that may be launched now: ``limit`` at most, as far as the limits of motoko.yaml allow."""
        count = len(self.tags(manager))
        if service.max_running is not None:
            limit = min(limit, service.max_running - count)
        if service.slots is None:
            return waiting.take(limit)
        free = service.slots - self._processors.get(manager, 0)
        return waiting.take(limit, free, idle=not count)
