"""TCP ports that nobody else takes meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest


def claim_ports(count: int) -> tuple[socket.socket, int]:
    """Take up to ten ports that no other test takes, for as long as the socket is open; answer the first.

    They are below the range out of which the system gives ports to clients.
    """
    assert count <= 10
    for port in range(17000, 32000, 10):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0motoko-test-ports-{port}")
            for offset in range(count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", port + offset))
        except OSError:
            claim.close()
        else:
            return claim, port
    raise AssertionError("no free ports between 17000 and 32000")


@pytest.fixture
def tcp_port() -> Iterator[int]:
    """A port for a server."""
    claim, port = claim_ports(1)
    with claim:
        yield port
