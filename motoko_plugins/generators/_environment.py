"""What the jobs find in their environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from motoko_core.interfaces import TAG_VARIABLE


def job_environment() -> dict[str, str]:
    """Return the jobs' environment: ours, where ``python`` and ``canYouDigIt`` are those beside Motoko.

    Of a launcher that a task has started, the jobs are not the task's.
    """
    environment = dict(os.environ)
    environment.pop(TAG_VARIABLE, None)
    path = environment.get("PATH", os.defpath)
    programs = str(Path(sys.executable).parent) if sys.executable else ""
    if programs and programs not in path.split(os.pathsep):
        environment["PATH"] = os.pathsep.join([programs, path])
    return environment
