"""What `qstat -f` says, in the dialects of OpenPBS, PBS Pro, TORQUE and of SLURM's own `qstat`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from motoko_plugins.generators._scheduler import Phase, Seen

_ATTRIBUTE = re.compile(r"(\s+)([\w.]+) = (.*)")

PHASES = {
    **dict.fromkeys("QHWTM", Phase.WAITING),  # queued, held, waiting for its time, in transit, moved
    **dict.fromkeys("RESB", Phase.RUNNING),  # running, exiting, suspended, an array that has begun
    **dict.fromkeys("CFX", Phase.OVER),  # completed (TORQUE, SLURM), finished (PBS Pro), an array's element
}  # U is "suspended by the keyboard" in PBS Pro, and "no idea" in SLURM's qstat.

#: Exit statuses that PBS gives jobs which it has ended itself: TORQUE has -10 to -12, PBS Pro the others.
REASONS = {
    **dict.fromkeys((-1, -2, -3), "NODE_FAIL"),  # the node could not start it
    -10: "OUT_OF_MEMORY",
    -11: "TIMEOUT",
    -12: "TIMEOUT",
    -26: "OUT_OF_MEMORY",
    -27: "OUT_OF_MEMORY",
    -28: "TIMEOUT",
    -29: "TIMEOUT",
}
#: A status above this is a signal's number and this.
_SIGNALLED = 256


def attributes_of(output: str) -> dict[str, dict[str, str]]:
    """Job id -> attributes.

    :raises ValueError: this is no answer of ``qstat -f``.
    """
    jobs: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] | None = None
    indent = name = ""
    for line in output.splitlines():
        if line.startswith("Job Id:"):
            attributes = jobs[line.removeprefix("Job Id:").strip()] = {}
            indent = name = ""
        elif attributes is None:
            if line.strip():
                raise ValueError(f"`qstat -f` does not begin with `Job Id:` but with {line[:80]!r}")
        # PBS indents with spaces, and goes on with a tab in the next line when a value is long.
        elif (match := _ATTRIBUTE.fullmatch(line)) and indent in ("", match[1]):
            indent, name = match[1], match[2]
            attributes[name] = match[3]
        elif name and line.strip():
            attributes[name] += line.strip()
    return jobs


def number_of(job_id: str) -> str:
    """A job's id without the name of the server, which is written in more than one way: ``12``."""
    return job_id.partition(".")[0]


def seen(job_id: str, attributes: Mapping[str, str]) -> Seen:
    """One job."""
    word = attributes.get("job_state", "?")
    phase = PHASES.get(word, Phase.UNKNOWN)
    exit_code, reason = None, None
    if phase is Phase.OVER:
        exit_code, reason = _end(attributes)
    comment = attributes.get("comment", "")
    return Seen(
        name=attributes.get("Job_Name", ""),
        index=None,
        job_id=job_id,
        record_job=number_of(job_id),
        phase=phase,
        exit_code=exit_code,
        reason=reason,
        word=f"{word} ({comment})" if comment else word,
    )


def _end(attributes: Mapping[str, str]) -> tuple[int | None, str | None]:
    """Exit code and reason of a job that is over."""
    try:
        # PBS Pro writes Exit_status, TORQUE exit_status, SLURM's qstat nothing.
        status = int(attributes.get("Exit_status", attributes.get("exit_status", "")))
    except ValueError:
        return None, None
    if status < 0:
        return None, REASONS.get(status)
    if status <= _SIGNALLED:
        return status, None
    limit, used = (
        _seconds(attributes.get(f"{of}.walltime", "")) for of in ("Resource_List", "resources_used")
    )
    # TORQUE ends a job whose time is over with a signal, and says no more.
    return (
        _SIGNALLED - status,
        "TIMEOUT" if limit is not None and used is not None and used >= limit else None,
    )


def _seconds(text: str) -> int | None:
    """A duration such as ``1:30:00`` in seconds; None if it is none."""
    if not re.fullmatch(r"\d+(:\d+){0,3}", text):
        return None
    total = 0
    for part, factor in zip(reversed(text.split(":")), (1, 60, 3600, 86400), strict=False):
        total += int(part) * factor
    return total
