"""The files that a run writes its output to, shown as they grow."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motoko_core.cli.output import emit_bytes, is_terminal, say
from motoko_core.interfaces import LaunchTask

_CHUNK_BYTES = 1 << 16


class Output:
    """Standard output, standard error, or both, of one run.

    On a terminal, each file has a headline if both are shown.
    """

    def __init__(self, *, stdout: bool, stderr: bool) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._has_headlines = stdout and stderr and is_terminal()
        #: File -> its inode, and how far it has been shown.
        self._shown: dict[Path, tuple[int, int]] = {}
        self._last: Path | None = None

    @staticmethod
    def directory(entries: Mapping[str, Any]) -> Path:
        """The run's directory."""
        return Path(str(entries.get("run_path")))

    def _expected(self, entries: Mapping[str, Any]) -> list[Path]:
        task = LaunchTask(
            tag="",
            task="",
            run_id=entries["id"],
            run_name=str(entries.get("run_name")),
            directory=self.directory(entries),
            script="",
        )
        return [task.stdout] * self._stdout + [task.stderr] * self._stderr

    def names(self, entries: Mapping[str, Any]) -> str:
        """The names of the files, for messages."""
        return " and ".join(path.name for path in self._expected(entries))

    def show(self, entries: Mapping[str, Any]) -> bool:
        """Show what has not been shown yet; answer whether there is such a file."""
        if not entries.get("run_path"):
            return False
        found = [path for path in map(_existing, self._expected(entries)) if path]
        return sum(self._show(path) for path in found) > 0

    def _show(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                info = os.fstat(file.fileno())
                inode, position = self._shown.get(path, (info.st_ino, 0))
                if inode != info.st_ino or position > info.st_size:
                    position = 0  # another attempt writes a new one
                file.seek(position)
                is_new = path not in self._shown or position < info.st_size
                if self._has_headlines and path != self._last and is_new:
                    say(("\n" if self._last else "") + f"==> {path} <==")
                    self._last = path
                while chunk := file.read(_CHUNK_BYTES):
                    emit_bytes(chunk)
                    position += len(chunk)
                self._shown[path] = info.st_ino, position
        except BrokenPipeError:
            raise
        except OSError:
            return False
        return True


def _existing(path: Path) -> Path | None:
    """The file; or the latest that a scheduler has named after its own job's number."""
    if path.is_file():
        return path
    stem = path.name.rpartition(".")[0]
    kind = path.name[len(stem) : len(stem) + 2]  # .o or .e
    named = path.parent.glob(glob.escape(stem + kind) + "*")
    return max((p for p in named if p.is_file()), key=lambda p: p.stat().st_mtime, default=None)
