"""Packing: a database keeps every state that its objects ever had, until it is packed."""

from __future__ import annotations

import shutil
import time

import attrs
import ZEO.Exceptions
from ZEO.Exceptions import ServerException

from motoko_core.errors import DatabaseFault, StudyError
from motoko_core.study.client import StudyClient, errno_of
from motoko_core.study.server import Server

#: What is younger is kept: a transaction that is under way reads the states of its beginning, and one that
#: was cut short is recognized by its record.
MARGIN_S = 30.0
_CONNECT_TIMEOUT_S = 15


@attrs.frozen
class Packed:
    """What packing did.

    :param before: bytes.
    :param after: bytes.
    :param copy: bytes of the copy of what was there before, ``bd.zeo.old``; None if there is none.
    """

    before: int
    after: int
    copy: int | None


def pack(server: Server, days: float = 0.0) -> Packed:
    """Drop the states that objects had before, through the running server, beside other clients.

    :param days: what was current within so many days is kept.
    :raises StudyError: the server cannot do it.
    """
    old = server.data.with_name(server.data.name + ".old")
    try:
        client = StudyClient(server, wait_timeout=_CONNECT_TIMEOUT_S)
    except ZEO.Exceptions.ClientDisconnected as error:
        raise StudyError(
            f"the server of {server.title} does not answer", hint="`motoko servers` tells more."
        ) from error
    try:
        before = client.getSize()
        client.pack(time.time() - MARGIN_S, days=days)
        after = client.getSize()
    except ServerException as error:
        raise _failed(server, error) from error
    finally:
        client.close()
    copy = old.stat().st_size if old.exists() else None  # the server removed that of the last time
    return Packed(before, after, copy)


def _failed(server: Server, error: ServerException) -> StudyError:
    if errno_of(error) is None:
        return StudyError(f"cannot pack {server.title}: {error.args[1]}", where=str(server.data))
    free = shutil.disk_usage(server.directory).free if server.directory.exists() else "?"
    return DatabaseFault(
        f"cannot pack {server.title}: {error.args[1][1]}; the disk has {free} bytes left",
        where=str(server.data),
        hint="Packing writes a copy first. The database is as it was; free some space, then try again.",
    )
