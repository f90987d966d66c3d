"""What happens to a ZEO client in the wild: its connection is cut, or it falls behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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


class _InOrder(list[Any]):
    """The readers of a client, in place of a set."""

    add = list.append


@contextmanager
def half_told(storage: Any, told: Any, commit: Callable[[], object]) -> Iterator[None]:
    """Stop a client's network thread while it tells of a commit: one reader knows of it, the others do not.

    It goes on when somebody waits for what it has locked meanwhile, or at the end.

    :param told: the storage of the connection that knows.
    :param commit: commits, through another client.
    """
    stopped, go_on = threading.Event(), threading.Event()

    class Stop:
        def _invalidate(self, tid: bytes, oids: Any) -> None:
            stopped.set()
            assert go_on.wait(TIMEOUT_S)

    readers, cache = storage._db, storage._cache
    last = cache.getLastTid

    def asked() -> Any:
        if cache._lock.acquire(blocking=False):
            cache._lock.release()
        else:
            go_on.set()
        return last()

    stop = Stop()
    with readers._lock:
        readers._instances = _InOrder([told, stop, *(readers._instances - {told})])
    cache.getLastTid = asked
    try:
        commit()
        assert stopped.wait(TIMEOUT_S)
        yield
    finally:
        go_on.set()
        del cache.getLastTid
        with readers._lock:
            readers._instances = set(readers._instances) - {stop}
