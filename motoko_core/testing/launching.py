"""A workflow whose launcher dies: each run is executed once, and its end is told."""

from __future__ import annotations

import math
import random
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction

from motoko_core import lifecycle
from motoko_core.lifecycle import runs_directory
from motoko_core.study.starting import stop_servers
from motoko_core.testing.mortal import STEPS
from motoko_core.testing.study import TEXT, Study
from motoko_core.testing.subject import Subject, in_loop
from motoko_core.workflow import Workflow

__all__ = ["LauncherTests"]


class LauncherTests(Subject):
    """A real workflow with real servers; its launcher dies at one step after another."""

    @pytest.fixture(scope="class")
    @classmethod
    def created(cls, workflow_directory: Path) -> Iterator[Path]:
        """The workflow with its databases, and servers that run."""
        path = workflow_directory / "motoko.yaml"
        workflow = Workflow(path)
        workflow.create(validated=True)
        lifecycle.disconnect(workflow)
        yield path
        stop_servers(lifecycle.servers(workflow))

    @pytest.fixture
    def study(self, created: Path) -> Iterator[Study]:
        """The study, through connections of its own; what a test has left open is of no interest."""
        workflow = Workflow(created)
        workflow.run_name = f"conformance {uuid.uuid4().hex[:8]}: it's $(touch pwned)"
        study = Study(workflow, self.timeout_s)
        yield study
        transaction.abort()
        study.retire()
        lifecycle.disconnect(workflow)

    @in_loop
    async def test_many_runs_of_a_study(self, study: Study) -> None:
        study.create(self.many)
        async with study.launcher():
            await study.settled()
        study.check()
        directory, name = runs_directory(study.manager), study.workflow.run_name
        printed = {(directory / f"run-{i}" / f"{name}.o{i}").read_text() for i in study.expected}
        assert printed == {f"{TEXT}\n"}
        assert not list(study.workflow.configuration.directory.rglob("pwned"))

    @pytest.mark.parametrize("step", STEPS)
    @in_loop
    async def test_a_launcher_that_dies_is_continued(self, study: Study, step: str) -> None:
        study.create(6)
        calls = _random_number(1, 5_000) if step == "in submit" else 0
        code = await study.dying_launcher(step=step, calls=calls)
        assert code == -signal.SIGKILL
        assert study.open_runs() or step == "after settle", "it should not have come so far"
        async with study.launcher():
            await study.settled()
        study.check(f"{calls=}")

    @in_loop
    async def test_a_launcher_that_dies_again_and_again(self, study: Study) -> None:
        """At random moments: after so many function calls."""
        calls: list[int] = []
        for _ in range(self.kills()):
            if len(study.open_runs()) < 6:
                study.create(6)
            calls.append(_random_number(300, 100_000))
            await study.dying_launcher(calls=calls[-1])
        async with study.launcher():
            await study.settled()
        study.check(f"{calls=}")


def _random_number(least: int, most: int) -> int:
    """A number whose order of magnitude is random: the first calls are as interesting as all the others."""
    return round(math.exp(random.uniform(math.log(least), math.log(most))))
