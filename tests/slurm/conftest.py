from __future__ import annotations

from pathlib import Path

import pytest

from tests.launching import fifo, launch_directory, no_safety_look, scripts

__all__ = ["executions", "fifo", "launch_directory", "no_safety_look", "scripts"]


class Executions:
    """A directory in which runs note that they are executed.

    :param note: what a script executes for that.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.note = f"echo . >> {directory}/$MOTOKO_TAG"

    def counted(self) -> list[int]:
        """How often each was executed."""
        return [len(path.read_text().splitlines()) for path in self.directory.iterdir()]


@pytest.fixture
def executions(tmp_path: Path) -> Executions:
    (tmp_path / "executions").mkdir()
    return Executions(tmp_path / "executions")
