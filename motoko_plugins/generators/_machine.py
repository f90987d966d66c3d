"""Which machine a job is executed on, as its exit record says: whether it can be seen from here.

The name of a host changes while its processes go on: that of a laptop with the network, that of a container
when it is made anew. So more is written down. What executes a job calls itself
``<host>/<boot>/<start>:<process id>``; what a system does not tell is empty, and earlier versions wrote
``<host>:<process id>``.

- boot: of this start of the kernel, ``/proc/sys/kernel/random/boot_id`` (random(4)). Containers share it.
- start: when the process was started, in ticks since the kernel was, field 22 of ``/proc/<pid>/stat``
  (proc(5)). A container that is made anew gives the process ids of the old one again.

``/etc/machine-id`` would tell after a restart that what was begun before is over, even if the name has
changed; but machines that were made from one image share it, and a job at work there must not count as lost.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def machine() -> str:
    """Return the words for this machine: ``<host>/<boot>``."""
    return f"{socket.gethostname()}/{_boot_id()}"


def host_of(job: str) -> str:
    """Return the name that the host had on which a job was begun."""
    return _parts(job)[0]


def is_elsewhere(job: str) -> bool:
    """Whether a job may be under way where its processes cannot be seen from here."""
    host, boot, _ = _parts(job)
    return host != socket.gethostname() and not (boot and boot == _boot_id())


def may_be(job: str, pid: int) -> bool:
    """Whether a process here, of the same number, may be what the job calls itself, and not a later one."""
    _, boot, start = _parts(job)
    if boot and boot != _boot_id():
        return False
    return not start or start == start_of(pid)


def start_of(pid: int) -> str:
    """Return when a process was started; empty if nobody can tell."""
    with suppress(OSError):
        # The name of the program, in parentheses, can hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[19]
    return ""


def _parts(job: str) -> tuple[str, str, str]:
    host, boot, start = [*job.rpartition(":")[0].split("/"), "", ""][:3]
    return host, boot, start


@cache
def _boot_id() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
