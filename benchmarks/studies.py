"""The directories that are measured in: made once for each size, copied for each version."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

from benchmarks.process import end_processes, prepare
from benchmarks.subjects import Subject

#: What belongs to a server that ran, not to the data.
_OF_SERVERS = shutil.ignore_patterns("*.socket*", "*.conf", "*.log", "*.out", "*.lock", "*.tmp")


class Studies:
    """Studies filled by Motoko in a directory of their own, below a temporary one.

    :param own: the version that fills them; what it writes is what Motoko 0.1.4 writes, only sooner.
    """

    def __init__(self, directory: Path, own: Subject) -> None:
        self.directory = directory
        self._own = own
        self._numbers = count(1)
        self._filled: dict[int, Path] = {}

    async def copy(self, runs: int, subject: Subject) -> Path:
        """A study with so many runs, served by the version that will be measured, with its own settings."""
        if runs not in self._filled:
            self._filled[runs] = await self._fill(runs)
        target = self.empty()
        shutil.copytree(self._filled[runs], target, ignore=_OF_SERVERS, dirs_exist_ok=True)
        await prepare(subject, "serve", target)
        return target

    async def _fill(self, runs: int) -> Path:
        directory = self.empty()
        await prepare(self._own, "fill", directory, "--runs", runs)
        end_processes(directory, needs_data=True)
        return directory

    def empty(self) -> Path:
        """A new directory."""
        directory = self.directory / f"w{next(self._numbers)}"
        directory.mkdir()
        return directory

    def end(self, directory: Path) -> None:
        """End what runs in a directory."""
        end_processes(directory)

    def remove(self, directory: Path) -> None:
        """End what runs in a directory, and remove it."""
        self.end(directory)
        shutil.rmtree(directory, ignore_errors=True)

    def forget(self, runs: int) -> None:
        """Remove the study that copies were made of."""
        directory = self._filled.pop(runs, None)
        if directory is not None:
            self.remove(directory)
