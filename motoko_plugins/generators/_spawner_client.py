"""The launcher's end of the socket to the spawner."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from motoko_core.interfaces import TAG_VARIABLE, LaunchTask, exit_record_path
from motoko_plugins.generators._bash_options import BashOptions
from motoko_plugins.generators._environment import job_environment
from motoko_plugins.generators._machine import machine, may_be

log = logging.getLogger(__name__)

#: How long a spawner may take to answer.
_ANSWER_S = 10.0
#: How long a spawner without a job may take to end.
_END_S = 5.0

_READ_BYTES = 1 << 16

PROGRAM = Path(__file__).with_name("_spawner.py")


def is_spawner(spawner: str) -> bool:
    """Whether the spawner that calls itself so in a record is at work, on this machine."""
    try:
        process = psutil.Process(int(spawner.rpartition(":")[2]))
        is_one = PROGRAM.name in [Path(word).name for word in process.cmdline()]
        return is_one and may_be(spawner, process.pid)
    except (ValueError, psutil.Error):
        return False


class SpawnerClient:
    """Starts a spawner when there is something for it to do, and talks to it.

    :param hear: called with the words of each message.
    :param lost: awaited with the number of a spawner that has died.
    """

    def __init__(
        self, options: BashOptions, hear: Callable[..., None], lost: Callable[[int], Awaitable[None]]
    ) -> None:
        self._options = options
        self._hear = hear
        self._lost = lost
        self._writer: asyncio.StreamWriter | None = None
        self._reaper: threading.Thread | None = None
        self._listener: asyncio.Task[None] | None = None
        self._dropped: list[asyncio.Future[None]] = []
        self._number = 0
        self._starting = asyncio.Lock()

    async def run(self, tasks: Sequence[LaunchTask]) -> int:
        """Have jobs started; answers the number of the spawner that has got them.

        :raises OSError: there can be no spawner.
        """
        async with self._starting:
            if self._writer is None:
                await self._start()
        ours = self._options.stdout
        jobs: list[Sequence[Any]] = []
        for task in tasks:
            output = (None, None) if ours else (str(task.stdout), str(task.stderr))
            record = str(exit_record_path(task.directory, task.tag))
            jobs.append(("run", task.tag, task.nproc, str(task.directory), task.script, *output, record))
        self._say(*jobs)
        return self._number

    async def drop(self, tags: Sequence[str]) -> None:
        """Have those forgotten that have not started; returns when the answer has been heard.

        A spawner that is stopped answers when it goes on; it is not waited for all the time.
        """
        async with self._starting:
            pass  # jobs that wait for a new spawner come first
        if self._writer is None or not tags:
            return
        answered = asyncio.get_running_loop().create_future()
        self._dropped.append(answered)
        self._say(("drop", list(tags)))
        await asyncio.wait({answered}, timeout=_ANSWER_S)

    async def close(self, *, idle: bool) -> None:
        """Leave the spawner alone; it ends with its last job.

        :param idle: it has none: wait until it has ended.
        """
        if self._listener:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._disconnect()
        if idle and self._reaper:
            await asyncio.to_thread(self._reaper.join, _END_S)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, once
                [
                    *(sys.executable, "-I", "-S", os.fspath(PROGRAM)),
                    *(str(theirs.fileno()), str(self._options.slots), TAG_VARIABLE, machine()),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=job_environment(),
                start_new_session=True,
            )
        # It may outlive us; if it does not, it is not left a zombie.
        self._reaper = threading.Thread(target=process.wait, daemon=True)
        self._reaper.start()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._number += 1
        self._listener = asyncio.create_task(self._listen(reader, self._number))

    def _say(self, *messages: Sequence[Any]) -> None:
        if self._writer is not None:  # else it has died, and the listener sees to it
            self._writer.write("".join(f"{json.dumps(words)}\n" for words in messages).encode())

    async def _listen(self, reader: asyncio.StreamReader, number: int) -> None:
        incoming = b""
        with suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                *lines, incoming = (incoming + data).split(b"\n")
                for line in lines:
                    kind, *words = json.loads(line)
                    self._hear(kind, *words)
                    if kind == "dropped":
                        _answer(self._dropped.pop(0))
        await self._disconnect()
        await self._lost(number)

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        dropped, self._dropped = self._dropped, []
        if writer is not None:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        for answered in dropped:
            _answer(answered)


def _answer(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():  # whoever waited may have been cancelled
        waiting.set_result(None)
