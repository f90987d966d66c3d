"""The last values of quantities, from the files that ``pushQuantity`` writes into the run directories."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from motoko_core.study.record import Record

logger = logging.getLogger("motoko")

#: A line that is longer is looked for in the whole file.
_TAIL = 4096


class LastQuantities:
    """Reads the last value of each quantity of runs.

    :param directory: the study's, to which relative paths belong.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unreadable: list[str] = []

    def of(self, run: Record) -> dict[str, Any]:
        """Name of a quantity -> its value at the last step that was written whole; a list if it has several.

        None if there is none, or its file is gone.
        """
        found = {}
        for name, place in run.quantities.items():
            try:
                found[str(name)] = _last_value(self._directory / place)
            except (OSError, TypeError, ValueError) as error:
                found[str(name)] = None
                self._unreadable.append(f"{name} of run {run.id} ({error})")
        return found

    def report(self) -> None:
        """Say which files could not be read, if any."""
        if self._unreadable:
            logger.warning(
                "%d values are left empty, as the files of quantities cannot be read: %s, ...",
                len(self._unreadable),
                self._unreadable[0],
            )
            self._unreadable.clear()


def _last_value(path: Path) -> Any:
    cells = _last_line(path).split(",")[1:]  # the first is the step
    if not cells:
        return None
    values = [_value(cell) for cell in cells]
    return values[0] if len(values) == 1 else values


def _last_line(path: Path) -> str:
    """The last line that is complete; empty if there is none but the header."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for length in (_TAIL, size):
            begin = max(0, size - length)
            file.seek(begin)
            # What stands behind the last line end is being written.
            lines = file.read(length).split(b"\n")[:-1]
            if begin == 0:
                lines = lines[1:]  # the header
            elif len(lines) > 1:
                lines = lines[1:]  # the end of a line
            else:
                continue
            break
    return lines[-1].decode(errors="replace") if lines else ""


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
