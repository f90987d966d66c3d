"""What a job and a run are known by: their parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from motoko_core.entries import OF_AN_EXECUTION

#: Entries of a run that say how it was made or how far it is; they do not tell runs apart.
_BOOKKEEPING = frozenset(
    {
        *("id", "state", "start_time", "last_step", "last_step_time", "run_path", "exec", "event_name"),
        *("workflow", "blackdynamite_version", "python_requirements"),
        *OF_AN_EXECUTION,
    }
)
#: Bytes of a job's parameters that stand in the index as they are.
_PLAIN_IDENTITY = 64


def canonical(value: Any) -> str:
    """A text that is the same for equal values, whatever their number type or the order of their keys."""
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, (bool, int, float)):
        return repr(int(value) if not isinstance(value, float) or value.is_integer() else value)
    if isinstance(value, Mapping):
        items = sorted((canonical(k), canonical(v)) for k, v in value.items())
        return "{" + ",".join(f"{k}:{v}" for k, v in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    return repr(value)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:16]


def job_identity(entries: Mapping[str, Any]) -> bytes:
    """What is the same for jobs with equal parameters; neighbours in a sweep are neighbours in its order."""
    text = canonical({k: v for k, v in entries.items() if k != "id"}).encode("utf-8", "surrogatepass")
    # The former are shorter than the latter: they cannot be equal.
    return text if len(text) <= _PLAIN_IDENTITY else text[:_PLAIN_IDENTITY] + _digest(text)


def run_parameters_identity(entries: Mapping[str, Any]) -> bytes:
    """What is the same for runs with equal parameters of their own, whatever their jobs."""
    parameters = {k: v for k, v in entries.items() if k not in _BOOKKEEPING and k != "job_id"}
    return _digest(canonical(parameters).encode("utf-8", "surrogatepass"))


def identity_in_job(job_id: int, parameters: bytes) -> bytes:
    """What a run is known by; the runs of a job are neighbours.

    :param parameters: of :func:`run_parameters_identity`.
    """
    return job_id.to_bytes(8, "big") + parameters


def run_identity(entries: Mapping[str, Any]) -> bytes:
    """What a run with these entries is known by."""
    return identity_in_job(entries["job_id"], run_parameters_identity(entries))
