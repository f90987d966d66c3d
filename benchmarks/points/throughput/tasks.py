"""The task, and what an engine has to do with it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

#: At a time, and so many cores are used: on a larger machine too.
WORKERS = 2
#: What a study's launch.sh is to Motoko: a script that bash has to be started for, and that does nothing.
SCRIPT = "#!/bin/bash\n"


class Taken(NamedTuple):
    """What tasks took, in seconds.

    :param creating_s: to store them, before any may be executed; 0 where they are executed as they come.
    :param executing_s: from there to the end of the last one, as the engine's user sees it.
    """

    creating_s: float
    executing_s: float


class Engine(Protocol):
    """Something that executes tasks, and waits for more."""

    def independent(self, count: int) -> Taken:
        """Execute so many tasks that do not depend on each other."""

    def chain(self, length: int) -> float:
        """Execute tasks one after the other, each when the one before is known to be done; answer the seconds
        that one step took."""


def command() -> list[str]:
    """What is executed for every task; its script is in the current directory."""
    script = Path("task.sh").resolve()
    if not script.exists():
        script.write_text(SCRIPT)
    return ["bash", str(script)]
