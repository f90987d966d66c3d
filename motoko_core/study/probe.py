"""Asking whoever listens at an address whether it is a ZEO server that answers.

That somebody accepts connections says little: so does a paused process, and so does one that was
killed a moment ago, until the system has taken it apart.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

Address = str | tuple[str, int]

UP = "up"
DOWN = "down"
SILENT = "does not answer"

_PROBE = b"ruok"


class NoAnswer(Exception):
    """Somebody listens, and does not answer the probe."""


def probe(address: Address, timeout_s: float = 1.0) -> dict[str, Any]:
    """Ask a ZEO server how it is, by its ``ruok`` protocol; answer the statistics of its storage.

    :raises OSError: nobody listens, or nobody can be reached.
    :raises NoAnswer: somebody listens, and does not answer in time.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(address)
        except (BlockingIOError, TimeoutError, ConnectionResetError) as error:
            raise NoAnswer(str(error)) from error  # it has not come to accept those before us
        try:
            client.sendall(struct.pack(">I", len(_PROBE)) + _PROBE)
            _frame(client)  # the protocol that it speaks
            answer = json.loads(_frame(client))
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error
    return answer["1"]  # type: ignore[no-any-return]


def _frame(client: socket.socket) -> bytes:
    (length,) = struct.unpack(">I", _exactly(client, 4))
    return _exactly(client, length)


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = client.recv(count - len(data))
        if not part:
            raise ConnectionResetError("the connection was closed")
        data += part
    return data


def state_of(address: Address) -> str:
    """``up``, ``down``, or ``does not answer``, which takes a second to find out."""
    try:
        probe(address)
    except NoAnswer:
        return SILENT
    except OSError:
        return DOWN
    return UP
