"""Scripts that stand before a scheduler's programs on the PATH: they count calls, and make them go wrong."""

from __future__ import annotations

import shlex
from pathlib import Path

# One short write of printf is not torn apart by another.
SCRIPT = """\
#!/bin/bash
printf '%s\\n' "${{*//$'\\n'/ }}" >> {calls}
real={real}
{before}
"$real" "$@"
code=$?
{after}
exit $code
"""


def write(directory: Path, program: str, real: str, before: str, after: str) -> None:
    """Put a wrapper of a program into a directory that is first on the PATH; the count starts anew."""
    calls = directory / f"{program}.calls"
    calls.write_text("")
    values = {"calls": shlex.quote(str(calls)), "real": shlex.quote(real), "before": before, "after": after}
    # Written aside: a call at this moment finds the old one or the new one.
    new = directory / f"{program}.new"
    new.write_text(SCRIPT.format(**values))
    new.chmod(0o755)
    new.replace(directory / program)


def calls(directory: Path, program: str) -> list[str]:
    """The arguments of each call."""
    return (directory / f"{program}.calls").read_text().splitlines()


def remove_all(directory: Path) -> None:
    """Have every program as it is again."""
    for path in directory.iterdir():
        path.unlink()
