"""Jobs in the list of processes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from motoko_core.interfaces import TAG_VARIABLE

#: How often a process is looked at where the system announces nothing.
_POLL_S = 0.02
#: ... and where there are too many to have the system announce all of their ends.
_POLL_MANY_S = 0.2
#: So much of the limit of open files is for their ends. (The limit is not raised: all jobs would inherit it,
#: and programs that close or select all files that could be open become slow, or fail.)
_SHARE = 0.25
_watched: set[int] = set()


def processes_of(tags: Collection[str]) -> dict[str, list[int]]:
    """Tag -> ids of the processes that belong to that job: they have the tag in their environment.

    :raises OSError: nobody can tell: no descriptor is left.
    """
    found: dict[str, list[int]] = {}
    wanted = {f"{TAG_VARIABLE}={tag}".encode(): tag for tag in tags}
    left = psutil.pids() if wanted else []
    for _ in range(2):
        empty = []
        for pid in left:
            with suppress(PermissionError, FileNotFoundError, ProcessLookupError):  # somebody else's, or gone
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                empty += [pid] if words == [b""] else []
                for word in wanted.keys() & set(words):
                    found.setdefault(wanted[word], []).append(pid)
        left = empty  # while a process begins to execute another program, it has none
    return found


def groups_of(tags: Collection[str]) -> set[int]:
    """The process groups of some jobs: a program can have left the one that its job has begun with.

    What a job's processes have started belongs to it as well, whatever it has in its environment.
    """
    pids = {pid for pids in processes_of(tags).values() for pid in pids}
    found = set()
    for pid in pids | _descendants(pids):
        with suppress(OSError):
            found.add(os.getpgid(pid))
    return found


def _descendants(pids: Collection[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in psutil.pids() if pids else ():
        with suppress(psutil.Error):
            children.setdefault(psutil.Process(pid).ppid(), []).append(pid)
    found: set[int] = set()
    left = list(pids)
    while left:
        new = set(children.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def first_of(pids: Iterable[int]) -> int | None:
    """That process of a job whose end is the job's: it leads the session. (Others may lead later ones.)"""
    leaders = []
    for pid in pids:
        with suppress(OSError):
            leaders += [pid] if os.getsid(pid) == pid else []
    return min(leaders, key=_start) if len(leaders) > 1 else next(iter(leaders), None)


def _start(pid: int) -> float:
    with suppress(OSError, psutil.Error):
        return psutil.Process(pid).create_time()
    return float("inf")


async def end_of(pid: int) -> None:
    """Return when a process has ended, or is a zombie; it need not be a child."""
    descriptor = _watch(pid)
    if descriptor is None:
        await _poll(pid)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    _watched.add(descriptor)
    try:
        await ended.wait()
    finally:
        _watched.discard(descriptor)
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _watch(pid: int) -> int | None:
    """A descriptor that tells the end of a process; None: it is to be looked at again and again."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and len(_watched) >= limit * _SHARE:
        return None
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or older than 5.3, or no descriptor left; or it has ended
        return None


async def _poll(pid: int) -> None:
    process: psutil.Process | None = None
    while True:
        try:
            process = process or psutil.Process(pid)
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.Error:
            return
        except OSError:  # no descriptor left to look with
            pass
        await asyncio.sleep(_POLL_MANY_S)


def living(groups: Collection[int]) -> set[int]:
    """Return the groups with a member that runs; zombies, which some containers never reap, do not count."""
    living = set()
    for pid in psutil.pids() if groups else ():
        with suppress(OSError, psutil.Error):
            if (group := os.getpgid(pid)) in groups and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.add(group)
    return living


def signal_process(pid: int, signal_number: int) -> None:
    """Send a signal to a process, if it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal_number)


def signal_group(group: int, signal_number: int) -> bool:
    """Send a signal to a process group; False if it has no member any more, or not ours."""
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


async def stop_groups(groups: Iterable[int], grace_s: float) -> None:
    """Stop process groups: SIGTERM, and SIGKILL after ``grace_s`` seconds for what is left."""
    left = {group for group in groups if signal_group(group, signal.SIGTERM)}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    # A group can outlive its first process (a program that tidies up after its shell has gone), and no event
    # announces its end. While it has a member, its number is not given to another.
    while (left := living(left)) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    for group in left:
        signal_group(group, signal.SIGKILL)
