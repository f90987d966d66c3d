"""How the database servers are: what each answers when it is asked, and what lies on the disk."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import psutil
from persistent.TimeStamp import TimeStamp

from motoko_core.errors import DatabaseFault
from motoko_core.study.probe import DOWN, SILENT, UP, NoAnswer, probe, state_of
from motoko_core.study.server import Server

NOT_CREATED = "not created"
NO_DATABASE = "no database"

#: What to do something about.
TROUBLES = (SILENT, NO_DATABASE)

_NOTHING = "0" * 16


@attrs.frozen(kw_only=True)
class Health:
    """What is known of one server.

    :param title: what it serves, such as ``study 'add'``.
    :param address: a path, or host:port.
    :param state: ``up``, ``down``, ``does not answer``, ``not created``, or ``no database`` (the file is
        something else).
    :param pid: of the server; None if it is down or on another machine.
    :param clients: how many are connected.
    :param waiting: how many clients wait for somebody else's commit.
    :param last_commit: when; None if it is not known, or there was none.
    :param size: of the database file, in bytes; None if it is on another machine.
    :param beside: the sizes of what packing and mending have left beside it, by name.
    """

    title: str
    address: str
    state: str
    pid: int | None = None
    clients: int | None = None
    waiting: int | None = None
    last_commit: datetime.datetime | None = None
    size: int | None = None
    beside: dict[str, int] = attrs.field(factory=dict)


def look(server: Server) -> Health:
    """How one server is; this takes a second if it does not answer."""
    address = server.address
    known: dict[str, Any] = {
        "title": server.title,
        "address": address if isinstance(address, str) else f"{address[0]}:{address[1]}",
        **_on_disk(server.data),
    }
    try:
        answer = probe(address)
    except NoAnswer:
        return Health(state=SILENT, pid=_pid(server), **known)
    except OSError:
        return Health(state=_state_without_server(server), **known)
    tid = answer["last-transaction"]
    return Health(
        state=UP,
        pid=_pid(server),
        clients=answer["connections"],
        waiting=answer["waiting"],
        last_commit=None if tid == _NOTHING else _time(bytes.fromhex(tid)),
        **known,
    )


def _state_without_server(server: Server) -> str:
    if not server.is_local:
        return DOWN
    if not server.data.exists():
        return NOT_CREATED
    from motoko_core.study.datafile import require_database

    try:
        require_database(server.title, server.data)
    except DatabaseFault:
        return NO_DATABASE
    except OSError:  # not to be read by us
        pass
    return DOWN


def look_at_all(servers: Sequence[Server]) -> list[Health]:
    """How servers are, in their order; they are asked side by side."""
    with ThreadPoolExecutor(max_workers=len(servers) or 1) as pool:
        return list(pool.map(look, servers))


def is_silent(server: Server) -> bool:
    """Whether a server answers nobody, and is not at work either; this takes a second if it is."""
    before = _processor_s(server)
    return state_of(server.address) == SILENT and _processor_s(server) == before


def _processor_s(server: Server) -> float | None:
    """How many seconds of processor time a server has used; None if it is down or on another machine."""
    pid = _pid(server)
    if pid is None:
        return None
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def _time(tid: bytes) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(TimeStamp(tid).timeTime(), datetime.timezone.utc)


def _pid(server: Server) -> int | None:
    """The process that has the database open; its lock file says so."""
    if not server.is_local:
        return None
    try:
        pid = int(server.data.with_name(server.data.name + ".lock").read_text())
    except (OSError, ValueError):
        return None
    return pid if psutil.pid_exists(pid) else None


def _on_disk(data: Path) -> dict[str, Any]:
    try:
        size = data.stat().st_size
    except OSError:
        return {"size": None}
    beside = {}
    for path in sorted([*data.parent.glob(data.name + ".old"), *data.parent.glob(data.name + ".tr*")]):
        beside[path.name] = path.stat().st_size
    return {"size": size, "beside": beside}
