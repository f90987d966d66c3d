"""Calls to a database's server that do not wait for ever for one that is silent.

ZEO waits for an answer without any time limit, so a paused server would hold up whoever asks it. Here a call
that takes long finds out whether the server still answers anybody, and if not, asks the client what to do:
wait, or break the connection, which ends the call as if the server had died. ZEO connects again by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ZEO.asyncio.client import ClientThread
from ZEO.asyncio.futures import run_coroutine_threadsafe

#: A call that takes longer makes us look whether the server answers at all. Answers take 1 ms. Who waits for
#: somebody else's commit waits longer, but then the server answers others. What keeps it from answering
#: anybody for so long is to write or to finish a commit of some 50,000 tasks, and that it is at work can be
#: seen on the same machine. If it is taken for silence on another one, our work is undone and repeated.
PATIENCE_S = 5.0
#: How much longer it may take for what we have it do ourselves: broken and repeated, that would never end.
#: Each object of a transaction keeps the server for 0.01 to 0.05 ms.
_PER_OBJECT_S = 0.001


class Waiting(Protocol):
    """The client for whom calls are made."""

    @property
    def is_patient(self) -> bool:
        """Whether calls wait for a silent server, however long."""

    def is_silent(self) -> bool:
        """Whether the server answers nobody and does nothing; this may take a second."""

    def on_silence(self) -> None:
        """A call waits for a silent server."""

    def on_answer(self) -> None:
        """A server that was silent has answered."""


class PatientThread(ClientThread):  # type: ignore[misc]
    """The network thread of a client, and what waits for it."""

    def __init__(self, addrs: Any, client: Waiting, *arguments: Any, **options: Any) -> None:
        self._waiting = client
        #: What the server may take longer, in seconds, because of what it does for us.
        self._allowance_s = 0.0
        super().__init__(addrs, client, *arguments, **options)

    def setup_delegation(self, loop: asyncio.AbstractEventLoop) -> None:
        super().setup_delegation(loop)
        self.io_call = self._io_call

    def _io_call(self, work: Coroutine[Any, Any, Any], wait: bool = True, *, unlimited: bool = False) -> Any:
        future = run_coroutine_threadsafe(work, self.loop)
        try:
            if not wait:
                return future
            return future.result() if unlimited else self.result_of(future)
        finally:
            del future  # ZEO: break the reference cycle in case of an exception

    def result_of(self, future: Any) -> Any:
        """Wait for the answer to a call.

        :raises ClientDisconnected: the connection was lost, or broken because the server is silent.
        """
        began, was_silent = time.monotonic(), False
        while True:
            with suppress(asyncio.TimeoutError):
                future.result(PATIENCE_S)
            if future.done():
                result = future.result()
                if was_silent:
                    self._waiting.on_answer()
                return result
            lasts_s = time.monotonic() - began
            if self._may_last(lasts_s) or not (self._is_cut_off() or self._waiting.is_silent()):
                continue
            was_silent = True
            self._waiting.on_silence()
            if not self._waiting.is_patient:
                self.loop.call_soon_threadsafe(self._break, lasts_s)

    def _is_cut_off(self) -> bool:
        """Whether the connection was lost, and there is no new one."""
        return self.client.ready is False  # None: there never was one

    def _may_last(self, seconds: float) -> bool:
        return seconds < PATIENCE_S + self._allowance_s

    def _break(self, lasts_s: float) -> None:
        """Break the connection, or the attempt to make one; in the network thread."""
        client = self.client
        if client.closed or self._may_last(lasts_s):
            return  # another thread has begun to finish a commit meanwhile
        protocol = client.protocol
        if protocol is not None:
            # Or what was not sent yet would be waited for.
            protocol.sm_protocol.transport.abort()
            protocol.close(f"no answer for {lasts_s:.0f} s")
        client.disconnected(protocol)

    # ------------------------------------------------------------------ what may last

    @contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Let the server take so much longer for all calls meanwhile."""
        self._allowance_s = seconds
        try:
            yield
        finally:
            self._allowance_s = 0.0

    def voting_on(self, objects: int) -> Any:
        """A context in which the server writes so many objects."""
        return self.allowing(objects * _PER_OBJECT_S)

    def tpc_finish(self, *arguments: Any, **options: Any) -> Any:
        # Once this is sent, only an answer tells whether the commit has happened.
        with self.allowing(float("inf")):
            return super().tpc_finish(*arguments, unlimited=True, **options)
