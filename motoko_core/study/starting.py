"""Starting and stopping the ZEO servers."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.daemons import stop_daemons, wait_until
from motoko_core.errors import StudyError
from motoko_core.locks import taking_turns
from motoko_core.study.probe import DOWN, SILENT, state_of
from motoko_core.study.server import Server

if TYPE_CHECKING:
    from motoko_core.study.datafile import Cut

logger = logging.getLogger("motoko")

_LITTLE_SPACE_BYTES = 2**20
#: How long a server that accepts connections may take to answer, before it is called stopped.
_PATIENCE_S = 15.0


def start_servers(servers: Iterable[Server], *, timeout_s: float = 30.0) -> list[Server]:
    """Start those that are down, side by side; answer the ones that were started.

    What a crash left at the end of a database is cut off, and a warning says so. If anything goes wrong,
    what was started is stopped again.

    :raises StudyError: one of them does not accept connections in time, does not answer, or cannot run here.
    :raises ~motoko_core.errors.DatabaseFault: a database is damaged, in use, or cannot be written.
    """
    # ZODB takes its time to be imported, and not everybody who knows servers starts them.
    from motoko_core.study.datafile import examine, require_database, require_unlocked, require_writable

    down = [server for server in servers if _is_down(server)]
    for server in down:
        if not server.is_local:
            raise _not_reached(server)
        if not server.data.exists():
            raise StudyError(
                f"{server.title} has no database yet: {server.data} is missing",
                hint="`motoko create` makes it; `motoko run` creates what is missing.",
            )
        require_database(server.title, server.data)
        require_writable(server.title, server.directory)
        require_writable(server.title, server.data)
    with ExitStack() as turns:
        # Two processes that start the same server side by side would remove each other's socket. All take
        # their turns in the same order, so that nobody waits in a circle.
        for directory in sorted({server.directory for server in down}):
            turns.enter_context(taking_turns(directory / "start.lock"))
        down = [server for server in down if _is_down(server)]
        cuts = []
        for server in down:
            # Whoever has it open is not stopped: it may be a server that has lost its socket, with clients.
            require_unlocked(server.title, server.data)
            cuts.append(examine(server.title, server.data))
        try:
            _start_together(down, cuts, timeout_s)
        except BaseException:
            stop_servers(down)
            raise
    return down


def _is_down(server: Server) -> bool:
    """Whether nobody serves a database.

    A server that was killed a moment ago accepts connections for some milliseconds more, when its process is
    not to be found any longer: whoever accepts has to answer as well.
    """
    state = SILENT

    def is_clear() -> bool:
        nonlocal state
        state = state_of(server.address)
        return state != SILENT

    if wait_until(is_clear, _PATIENCE_S):
        return state == DOWN
    if not server.is_local:
        raise _not_reached(server)
    raise StudyError(
        f"the server of {server.title} accepts connections at {server.address}, but does not answer",
        hint="Its process may be paused: `motoko servers` shows its number, and kill -CONT <number> lets "
        "it go on. `motoko kill` ends it; the next start brings a new one.",
    )


def _not_reached(server: Server) -> StudyError:
    return StudyError(
        f"{server.title} is served at {server.tcp}, which does not answer",
        hint="Start the server there, or mend `host:` in motoko.yaml.",
    )


def _start_together(servers: Sequence[Server], cuts: Sequence[Cut | None], timeout_s: float) -> None:
    from motoko_core.study.datafile import examine

    printed = [_start(server) for server in servers]
    for server, before, cut in zip(servers, printed, cuts, strict=True):
        up = wait_until(lambda s=server, b=before: s.is_up() or _has_failed(s, b), timeout_s)  # type: ignore[misc]
        if not up or not server.is_up():
            stop_servers([server])
            examine(server.title, server.data, thorough=True)
            raise _not_started(server)
        if cut is not None:
            logger.warning("%s: %s: %s", server.title, server.data, cut)


def _start(server: Server) -> int:
    """Start a server; answer how much it and those before it had printed."""
    if isinstance(server.address, str):
        # What a dead server left behind would be taken for a live one by BlackDynamite.
        Path(server.address).unlink(missing_ok=True)
    server.write_config()
    before = len(server.printed())
    server.daemon.start()
    return before


def _has_failed(server: Server, before: int) -> bool:
    """Whether a server has printed an exception; zdaemon tries again and again."""
    return re.search(r"^[\w.]*(Error|Exception)\b", server.printed()[before:], re.MULTILINE) is not None


def _not_started(server: Server) -> StudyError:
    free = shutil.disk_usage(server.directory).free
    space = f"Its disk has {free} bytes left. " if free < _LITTLE_SPACE_BYTES else ""
    return StudyError(
        f"the server of {server.title} did not start, or does not accept connections at {server.address}",
        hint=f"{space}The end of {server.directory / 'zeo.log'}:\n{server.log_tail()}",
    )


def stop_servers(servers: Sequence[Server]) -> list[Server]:
    """Stop the servers that run on this machine; answer the ones that were running."""
    daemons = {server.daemon: server for server in servers if server.is_local}
    return [daemons[daemon] for daemon in stop_daemons(list(daemons))]
