"""Showing log files, and what is added to them."""

from __future__ import annotations

import time
from pathlib import Path

from motoko_core.cli.output import complain, say

_POLL_S = 0.2
_LAST_LINES = 10


def follow(directory: Path, pattern: str, *, lines: int = _LAST_LINES) -> int:
    """Show the last lines of the files, and then what is added, until Ctrl-C; like ``tail -f``.

    Files that appear later are followed as well, and one that was cut short is read from its start.
    """
    positions: dict[Path, int] = {}
    shown: Path | None = None
    first = True
    try:
        while True:
            paths = sorted(directory.glob(pattern))
            if first and not paths:
                complain(f"no {directory / pattern} yet; waiting for one")
            for path in paths:
                text = _added(path, positions, last=lines if first else None)
                if text and len(positions) > 1 and path != shown:
                    say(f"==> {path} <==")
                if text:
                    say(text)
                    shown = path
            first = False
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return 0


def _added(path: Path, positions: dict[Path, int], *, last: int | None) -> str:
    """Whole lines that were added since the last call."""
    start = positions.get(path, 0)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < start:
                start = 0
            file.seek(start)
            data = file.read()
    except OSError:
        return ""
    whole = data[: data.rfind(b"\n") + 1]
    positions[path] = start + len(whole)
    found = whole.decode(errors="replace").splitlines()
    return "\n".join(found if last is None else found[-last:])
