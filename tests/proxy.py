"""A network that fails at the worst moment: in the last step of a commit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from motoko_core.study.server import Server

#: Where the connection is cut.
BEFORE_THE_SERVER = "before the server"
BEFORE_THE_ANSWER = "before the answer"
#: The server gets the last step late: when it has been asked something over the next connection.
ON_THE_WAY = "on the way"


class Proxy:
    """Stands between a client and its server, on a Unix socket, and cuts the connection in a commit.

    :param place: where it is cut.
    """

    def __init__(self, path: Path, server: str, place: str) -> None:
        #: Set by the test when the next commit is to be cut.
        self.is_armed = False
        self.has_cut = threading.Event()
        #: Called before the connection is cut.
        self.on_cut: Callable[[], object] = bool
        self._server = server
        self._place = place
        self._late: tuple[socket.socket, bytes] | None = None
        self._is_closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                cutting = threading.Event()
                for work in (self._requests, self._answers):
                    threading.Thread(target=work, args=(client, server, cutting), daemon=True).start()

    def _connect(self) -> socket.socket:
        while True:  # the server may be away for a while
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                server.close()
                if self._is_closed:
                    raise
                time.sleep(0.02)
            else:
                return server

    def _requests(self, client: socket.socket, server: socket.socket, cutting: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if self.is_armed and b"tpc_finish" in data:
                    self.is_armed = False
                    cutting.set()
                    if self._place == ON_THE_WAY:
                        self._late = server, data
                        self._cut(client)
                        return
                    if self._place == BEFORE_THE_SERVER:
                        self._cut(client, server)
                        return
                server.sendall(data)
                if self._late and (b"vote" in data or b"history" in data):
                    (late, held), self._late = self._late, None
                    late.sendall(held)
        _close(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, cutting: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if cutting.is_set():
                    self._cut(client, server)
                    return
                client.sendall(data)
        _close(client, server)

    def _cut(self, *ends: socket.socket) -> None:
        self.on_cut()
        self.has_cut.set()
        _close(*ends)

    def close(self) -> None:
        self._is_closed = True
        self._listener.close()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@attrs.frozen(kw_only=True)
class Proxied(Server):
    """A server that is reached through a proxy."""

    proxy: Path

    @property
    def address(self) -> str:
        return str(self.proxy)
