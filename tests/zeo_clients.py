"""What happens to a ZEO client in the wild: its connection is cut, or it falls behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motoko_core.daemons import wait_until
from tests.conftest import TIMEOUT_S


@contextmanager
def falling_behind(*storages: Any, cut: bool = False) -> Iterator[None]:
    """Stop the network threads of ZEO clients: what the servers send meanwhile is read afterwards.

    :param cut: close the connections too. The clients connect again, at once, when they go on.
    """
    go_on = threading.Event()
    protocols = [storage._server.client.protocol for storage in storages]
    for storage in storages:
        stopped = threading.Event()

        def stop(storage: Any = storage, stopped: threading.Event = stopped) -> None:
            if cut:
                storage._server.client.protocol.sm_protocol.transport.abort()
            stopped.set()
            go_on.wait()

        storage._server.loop.call_soon_threadsafe(stop)
        assert stopped.wait(TIMEOUT_S)
    try:
        yield
    finally:
        go_on.set()
    for storage, protocol in zip(storages, protocols, strict=True):
        if cut:
            reconnected(storage, protocol)


def reconnected(storage: Any, protocol: Any) -> None:
    """Wait until a client has another connection than ``protocol``, and may use it."""
    client = storage._server.client
    assert wait_until(lambda: client.protocol not in (None, protocol) and client.operational, TIMEOUT_S)


def caught_up(storage: Any, tid: bytes) -> None:
    """Wait until a client has heard of a transaction."""
    assert wait_until(lambda: storage.lastTransaction() >= tid, TIMEOUT_S)
