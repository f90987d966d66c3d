"""Which job executes a run: its name, its index in an array, and the run's place in it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from motoko_core.errors import ConfigError, MotokoError
from motoko_core.interfaces import LaunchTask
from motoko_plugins.generators._job_script import line_of, to_bytes
from motoko_plugins.generators._scheduler import Request, Scheduler

#: How long the question for the largest array may take, how long one without answer is not asked again, and
#: what is assumed meanwhile.
_LIMIT_TIMEOUT_S = 5.0
_LIMIT_PAUSE_S = 60.0
_LIMIT_UNKNOWN = 100
#: Intents that were made and not submitted.
_INTENTS = 10_000


class Plan:
    """Puts runs into jobs, before anything is submitted.

    :param max_array_size: how many elements an array may have; None: the scheduler is asked.
    """

    def __init__(
        self, scheduler: Scheduler, max_array_size: int | None, environment: Mapping[str, str]
    ) -> None:
        self._scheduler = scheduler
        self._environment = environment
        self._intended: dict[str, tuple[str, int, Request]] = {}
        self._limit = max_array_size
        self._limit_asked = float("-inf")

    def intents(self, batch: Sequence[LaunchTask]) -> Sequence[Mapping[str, Any]]:
        """Give each run the name and the index of its job, and its place among the runs of that job."""
        groups: dict[Request, list[LaunchTask]] = {}
        for task in batch:
            with suppress(MotokoError):  # submit() says it
                groups.setdefault(self.request(task), []).append(task)
        found: dict[str, Mapping[str, Any]] = {}
        for request, tasks in groups.items():
            size = request.runs_per_job
            per_name = size * self._largest_array()
            for first in range(0, len(tasks), per_name):
                name = self._scheduler.new_name()
                for number, task in enumerate(tasks[first : first + per_name]):
                    index, place = divmod(number, size)
                    self._intended[task.tag] = (name, index, request)
                    found[task.tag] = handle_of(name, index, place if size > 1 else None)
        while len(self._intended) > max(_INTENTS, len(batch)):
            del self._intended[next(iter(self._intended))]
        return [found.get(task.tag, {}) for task in batch]

    def _largest_array(self) -> int:
        """How many elements an array may have. (Asked once, where nothing can be awaited.)"""
        command = self._scheduler.limit_command()
        if self._limit is None and command is None:
            return _LIMIT_UNKNOWN
        if self._limit is None and time.monotonic() - self._limit_asked > _LIMIT_PAUSE_S:
            assert command is not None
            self._limit_asked = time.monotonic()
            with suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run(
                    command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_LIMIT_TIMEOUT_S,
                    check=True,
                )
                self._limit = self._scheduler.parse_limit(done.stdout.decode(errors="replace"))
        return self._limit or _LIMIT_UNKNOWN

    def take(self, batch: Sequence[LaunchTask]) -> Iterator[tuple[str, int, Request] | str]:
        """Give up the plans for some runs, made now if they are not yet: name, index and request, or why
        there are none."""
        if missing := [task for task in batch if task.tag not in self._intended]:
            self.intents(missing)
        for task in batch:
            if task.tag in self._intended:
                yield self._intended.pop(task.tag)
            else:
                yield self._why_not(task)

    def _why_not(self, task: LaunchTask) -> str:
        try:
            self.request(task)
        except MotokoError as error:
            return str(error)
        return "no reason is known"

    def request(self, task: LaunchTask) -> Request:
        """What a run asks for. One for which no script can be written would keep the others back.

        :raises MotokoError: its options or its names are wrong.
        """
        try:
            request = self._scheduler.request(task)
            to_bytes("".join((*request.options, *request.modules, line_of(task))))
        except MotokoError:
            raise
        except Exception as error:  # scripts and users may store anything
            raise ConfigError(f"no job script can be written: {type(error).__name__}: {error}") from error
        return request


def handle_of(
    name: str, index: int, place: int | None, job_ids: Sequence[str] | set[str] = ()
) -> dict[str, Any]:
    """What finds a run's job again."""
    handle: dict[str, Any] = {"name": name, "index": index}
    if place is not None:
        handle["place"] = place
    if job_ids:
        handle["job"] = min(job_ids)
    return handle
