"""Stopping jobs where no launcher is at work, with a generator of which one job executes several runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from motoko_core.entries import stopped
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_core.launch.service import Service
from motoko_core.launch.stopping import stop
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state
from tests.launching import NAME, entries_of, failure_of, no_other


class OneJob(JobGenerator):
    """Has all runs in one job: if one of them is stopped, the others have failed or are executed again.

    :param again: tags of the latter.
    """

    shares_jobs = True

    def __init__(self, again: Sequence[str] = ()) -> None:
        super().__init__(None)
        self.again = again
        self.tags: set[str] = set()
        self.ends: asyncio.Queue[Ended] = asyncio.Queue()

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        raise AssertionError("nothing is to be submitted")

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        self.tags = {task.tag for task, _ in batch}
        return self.tags

    async def ended(self) -> AsyncIterator[Ended]:
        while True:
            yield await self.ends.get()

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        for tag in sorted(self.tags - set(tags)):
            again = tag in self.again
            self.ends.put_nowait(Ended(tag=tag, exit_code=None if again else 3, again=again))
        for tag in tags:
            self.ends.put_nowait(Ended(tag=tag, exit_code=None, reason="CANCELLED"))


def in_hand(workflow: Workflow, count: int) -> dict[str, str]:
    """Runs that an earlier launcher had in hand, with their tags."""
    runs = create_tasks(workflow, n=list(range(count)))
    tags = {run: f"motoko-{run.replace('.', '-')}" for run in runs}
    for run, tag in tags.items():
        set_state(workflow, run, "launched", motoko_handle=json.dumps({"tag": tag, "generator": NAME}))
    return tags


async def test_the_other_runs_of_a_job_are_settled_as_they_have_ended(scripts: Workflow) -> None:
    wanted, _, again, interrupted = tags = in_hand(scripts, 4)
    # Whoever was about to stop this one, to have it executed again, was killed.
    set_state(scripts, interrupted, "launched", motoko_cancel=stopped(tags[interrupted]))
    service = Service(generator=OneJob([tags[again]]), name=NAME)
    assert await stop(scripts.mult, service, [number(wanted)], no_other) == 1
    found = [entries_of(scripts, run) for run in tags]
    assert [entries["state"] for entries in found] == ["FAILED", "FAILED", "CREATED", "CREATED"]
    assert [failure_of(entries).get("reason") for entries in found] == ["CANCELLED", "EXIT_CODE", None, None]
    assert not any(entries.keys() & {"motoko_handle", "motoko_cancel"} for entries in found)


async def test_runs_that_share_no_job_are_left_alone(scripts: Workflow) -> None:
    wanted, other = in_hand(scripts, 2)
    generator = OneJob()
    generator.shares_jobs = False  # type: ignore[misc]
    assert await stop(scripts.mult, Service(generator=generator, name=NAME), [number(wanted)], no_other) == 1
    assert entries_of(scripts, other)["state"] == "launched"


async def test_jobs_of_another_generator_are_left_alone(scripts: Workflow) -> None:
    wanted, other = tags = in_hand(scripts, 2)
    handle = {"tag": tags[other], "generator": "pbs"}
    set_state(scripts, other, "launched", motoko_handle=json.dumps(handle))
    service = Service(generator=OneJob(), name=NAME)
    assert await stop(scripts.mult, service, [number(wanted)], no_other) == 1
    assert entries_of(scripts, other)["motoko_handle"] == handle
