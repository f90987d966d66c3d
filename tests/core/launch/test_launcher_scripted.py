"""The launcher beside a generator that does what a test says: refusals, ends, and being stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from motoko_core.errors import MotokoError
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.launching import (
    entries_of,
    launching,
    settled,
    soon,
    until,
)


class Scripted(JobGenerator):
    """A generator that does what a test says; nothing is executed."""

    def __init__(self, *, refuse: bool = False, end_before_cancel: bool = False, die: bool = False) -> None:
        super().__init__(None)
        self.refuse, self.end_before_cancel, self.die = refuse, end_before_cancel, die
        self.submitted: asyncio.Queue[str] = asyncio.Queue()
        self.ends: asyncio.Queue[Ended | None] = asyncio.Queue()

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        if self.refuse:
            return [Submitted(tag=task.tag, error="the queue is closed") for task in batch]
        for task in batch:
            self.submitted.put_nowait(task.tag)
        return [Submitted(tag=task.tag, handle={"pid": 1}) for task in batch]

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        return set()

    async def ended(self) -> AsyncIterator[Ended]:
        while (end := await self.ends.get()) is not None:
            yield end

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        for tag in tags:
            reason = None if self.end_before_cancel else "CANCELLED"
            self.ends.put_nowait(Ended(tag=tag, exit_code=0, reason=reason))


class Lingering(Scripted):
    """One whose jobs take their time to end after they were told to."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        for tag in tags:
            self.cancelled.put_nowait(tag)


class Dying(Scripted):
    """Its launcher is killed when it stops jobs."""

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        raise SystemError("killed")


class Following(Scripted):
    """Its jobs end with an error when it has found them again."""

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        for task, _ in batch:
            self.ends.put_nowait(Ended(tag=task.tag, exit_code=3))
        return {task.tag for task, _ in batch}


async def test_a_generator_that_refuses_fails_the_run_with_its_reason(scripts: Workflow) -> None:
    async with launching(scripts, generator=Scripted(refuse=True)):
        (run,) = create_tasks(scripts, label="true")
        (entries,) = await settled(scripts, run)
    assert entries["motoko_failure"]["reason"] == "SUBMIT"
    assert entries["motoko_failure"]["stderr"] == "the queue is closed"


async def test_a_run_that_is_reset_waits_until_its_job_has_ended_and_the_others_do_not(
    scripts: Workflow,
) -> None:
    generator = Lingering()
    async with launching(scripts, generator=generator):
        (run,) = create_tasks(scripts, label="true")
        first = await soon(generator.submitted.get())
        set_state(scripts, run, "CREATED")
        assert await soon(generator.cancelled.get()) == first
        (other,) = create_tasks(scripts, study="add", label="true")
        generator.ends.put_nowait(Ended(tag=await soon(generator.submitted.get()), exit_code=0))
        await settled(scripts, other)
        (other,) = create_tasks(scripts, label="true", n=2)
        generator.ends.put_nowait(Ended(tag=await soon(generator.submitted.get()), exit_code=0))
        await settled(scripts, other)
        assert entries_of(scripts, run)["motoko_handle"]["tag"] == first
        assert generator.submitted.empty()
        generator.ends.put_nowait(Ended(tag=first, exit_code=0, reason="CANCELLED"))
        second = await soon(generator.submitted.get())
        generator.ends.put_nowait(Ended(tag=second, exit_code=0))
        (entries,) = await settled(scripts, run)
    assert first != second
    assert entries["state"] == "FINISHED"
    assert generator.cancelled.empty()


async def test_a_job_that_has_not_ended_when_the_launcher_stops_is_left_to_the_next_one(
    scripts: Workflow,
) -> None:
    generator = Lingering()
    async with launching(scripts, generator=generator):
        (run,) = create_tasks(scripts, label="true")
        tag = await soon(generator.submitted.get())
    assert generator.cancelled.get_nowait() == tag
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_handle"]["tag"]) == ("CREATED", tag)


async def test_a_run_is_executed_again_whose_launcher_was_killed_when_it_stopped_the_job(
    scripts: Workflow,
) -> None:
    generator, following = Dying(), Following()
    with pytest.raises(SystemError):  # noqa: PT012 - it is killed at the end of the context
        async with launching(scripts, generator=generator):
            create_tasks(scripts, label="true")
            first = await soon(generator.submitted.get())
    async with launching(scripts, generator=following):
        assert await soon(following.submitted.get()) != first


async def test_jobs_of_a_study_that_cannot_be_written_are_left_to_the_next_launcher(
    scripts: Workflow,
) -> None:
    generator = Lingering()
    async with launching(scripts, generator=generator) as launcher:
        (run,) = create_tasks(scripts, label="true")
        tag = await soon(generator.submitted.get())
        launcher._turns.give_up(scripts.mult, "its server is silent")
    assert generator.cancelled.empty()
    assert entries_of(scripts, run)["motoko_handle"]["tag"] == tag


@pytest.mark.parametrize(("at_the_last_moment", "state"), [(True, "FINISHED"), (False, "CREATED")])
async def test_a_job_that_ends_at_the_last_moment_is_not_executed_again(
    scripts: Workflow, at_the_last_moment: bool, state: str
) -> None:
    generator = Scripted(end_before_cancel=at_the_last_moment)
    async with launching(scripts, generator=generator):
        (run,) = create_tasks(scripts, label="true")
        await soon(generator.submitted.get())
        await until(scripts, run, lambda entries: entries["motoko_handle"].get("data"))
    assert entries_of(scripts, run)["state"] == state


async def test_an_end_that_arrives_with_the_stop_counts(scripts: Workflow) -> None:
    generator = Scripted()
    async with launching(scripts, generator=generator) as launcher:
        (run,) = create_tasks(scripts, label="true")
        tag = await soon(generator.submitted.get())
        await until(scripts, run, lambda entries: entries["motoko_handle"].get("data"))
        launcher.stop()
        generator.ends.put_nowait(Ended(tag=tag, exit_code=0))
    assert entries_of(scripts, run)["state"] == "FINISHED"


async def test_a_generator_that_stops_telling_ends_the_launcher(scripts: Workflow) -> None:
    generator = Scripted()
    launcher = Launcher({scripts.mult: Service(generator=generator)})
    generator.ends.put_nowait(None)
    with pytest.raises(MotokoError, match="stopped telling which jobs end"):
        await asyncio.wait_for(launcher.run(), TIMEOUT_S)


async def test_the_end_of_an_unknown_job_is_ignored(scripts: Workflow) -> None:
    generator = Scripted()
    async with launching(scripts, generator=generator):
        generator.ends.put_nowait(Ended(tag="somebody else's", exit_code=0))
        (run,) = create_tasks(scripts, label="true")
        generator.ends.put_nowait(Ended(tag=await soon(generator.submitted.get()), exit_code=0))
        assert (await settled(scripts, run))[0]["state"] == "FINISHED"
