"""Which generator is tested, and how its tests get at it."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import yaml

from motoko_core.interfaces import JobGenerator
from motoko_core.launch.generators import make_generator
from motoko_core.workflow import Workflow

__all__ = ["STUDY", "Subject", "in_loop"]

#: The one task manager of the workflow.
STUDY = "work"

T = TypeVar("T")


class Subject:
    """What a subclass says about its generator.

    ``options`` is a mapping or a list of strings, as below ``<generator>_options`` in motoko.yaml.
    """

    #: Its name in motoko.yaml.
    generator: ClassVar[str]
    #: Its options in motoko.yaml; make it look at its jobs often.
    options: ClassVar[Mapping[str, Any] | Sequence[str]] = {}
    #: Seconds within which a batch of short jobs is certainly over, on a busy machine too.
    timeout_s: ClassVar[float] = 60.0
    #: Number of jobs in the tests with many.
    many: ClassVar[int] = 200
    #: How often the launcher is killed at random moments; MOTOKO_RANDOM_KILLS in the environment wins.
    random_kills: ClassVar[int] = 3
    #: Whether the processes of the jobs are on this machine, so that tests can look for them.
    local: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def scheduler(cls) -> Iterator[None]:
        """To be overridden where something must run first: start it, ``yield``, stop it."""
        yield  # noqa: PT022 - an example of what belongs here

    @classmethod
    def prepare(cls, directory: Path) -> None:
        """To be overridden where a file must stand beside motoko.yaml: write it into ``directory``."""

    @pytest.fixture(scope="class")
    @classmethod
    def workflow_directory(cls, scheduler: None) -> Iterator[Path]:
        """A directory with motoko.yaml and a study; nothing is created or started in it.

        To be overridden where compute nodes do not see the temporary directory of this machine.
        """
        # pytest's own temporary directories are too deep for a Unix socket.
        directory = Path(tempfile.mkdtemp(prefix="mtk-"))
        cls.write(directory)
        yield directory
        shutil.rmtree(directory)

    @classmethod
    def write(cls, directory: Path) -> None:
        """Write the files of a workflow whose runs execute what their job parameter ``script`` says."""
        settings: dict[str, Any] = {
            "task_managers": {STUDY: None},
            "orchestrator": "orchestrator.main",
            "generator": cls.generator,
        }
        if cls.options:
            options = cls.options
            given = dict(options) if isinstance(options, Mapping) else list(options)
            settings[f"{cls.generator.removesuffix('Coat')}_options"] = given
        (directory / "motoko.yaml").write_text(yaml.safe_dump(settings))
        (directory / "orchestrator.py").write_text("async def main(workflow):\n    pass\n")
        study = directory / STUDY
        study.mkdir()
        (study / "bd.yaml").write_text(f"study: {STUDY}\njob:\n  script: str\n  number: int\n")
        (study / "launch.sh").write_text("__BLACKDYNAMITE__script__\n")
        (study / "doIt.py").write_text("")
        cls.prepare(directory)

    @classmethod
    def make_generator(cls, workflow_directory: Path) -> JobGenerator:
        """Make the generator as a launcher does. Called inside an event loop."""
        return make_generator(Workflow(workflow_directory / "motoko.yaml"))

    @classmethod
    def kills(cls) -> int:
        """How often the launcher is killed at random moments."""
        return int(os.environ.get("MOTOKO_RANDOM_KILLS", cls.random_kills))


def in_loop(story: Callable[..., Awaitable[T]]) -> Callable[..., T]:
    """Make a test of a coroutine function; so no plugin of pytest's is needed."""

    @functools.wraps(story)
    def test(self: Subject, *args: Any, **kwargs: Any) -> T:
        async def bounded() -> T:
            limit_s = self.timeout_s * (4 + self.kills())
            return await asyncio.wait_for(story(self, *args, **kwargs), limit_s)

        return asyncio.run(bounded())

    return test
