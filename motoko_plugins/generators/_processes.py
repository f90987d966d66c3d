"""Jobs in the list of processes."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

#: $0 of a job's wrapper; with the tag behind it, the job is recognized.
TITLE = "motoko-job"
#: How long a process may be without a command line when it begins.
_BEGINNING_S = 1.0


def is_job(pid: int, start: float | None, tag: str) -> bool:
    """Whether process ``pid`` is the wrapper of the job ``tag``, and not a later process with its number.

    Start times shift when the system's clock is set, therefore the tag decides if they differ.
    """
    try:
        process = psutil.Process(pid)
        if start is not None and abs(process.create_time() - start) < 0.1:
            return True
        return _command(process)[3:5] == [TITLE, tag]
    except psutil.Error:
        return False


def _command(process: psutil.Process) -> list[str]:
    """The command line of a process; if it is just beginning, the system does not know it for a moment.

    :raises psutil.Error: it has ended, or is none of our business.
    """
    end = time.monotonic() + _BEGINNING_S
    # (The program is known by then; a process that is being taken apart, or of the system's own, has none.)
    while not (command := process.cmdline()) and process.exe() and time.monotonic() < end:
        time.sleep(0.001)
    return command


def wrappers() -> dict[str, int]:
    """Tag -> process id of all jobs of this user."""
    found = {}
    for process in psutil.process_iter(["pid", "uids"]):
        uids = process.info["uids"]
        if uids is None or uids.real != os.getuid():
            continue
        with suppress(psutil.Error):
            command = _command(process)
            if len(command) > 4 and command[3] == TITLE:
                found[command[4]] = process.info["pid"]
    return found


def living(groups: set[int]) -> set[int]:
    """Return the groups with a member that runs; zombies, which some containers never reap, do not count."""
    living = set()
    for pid in psutil.pids() if groups else ():
        with suppress(OSError, psutil.Error):
            if (group := os.getpgid(pid)) in groups and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.add(group)
    return living


def signal_group(group: int, signal_number: int) -> bool:
    """Send a signal to a process group; False if it has no member any more, or not ours."""
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
