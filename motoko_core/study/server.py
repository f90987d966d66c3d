"""The ZEO servers: one per study, and one for the workflow variables.

Layout and file names are BlackDynamite's (``base_zeo.py``): its tools read ``.bd/zeo.conf`` to find the
address, so a socket in another place is found too.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from motoko_core.daemons import (
    Daemon,
    in_zconfig,
    is_accepting,
    private_directory,
    socket_path,
    stop_daemons,
    wait_until,
)
from motoko_core.errors import ConfigError, StudyError
from motoko_core.locks import taking_turns

Address = str | tuple[str, int]

_CONFIG = """\
<zeo>
  address {address}
  invalidation-queue-size 10000
  transaction-timeout 120
</zeo>

<filestorage>
  path {data}
  blob-dir {blobs}
</filestorage>

<eventlog>
  <logfile>
    path {log}
    format %(asctime)s %(message)s
  </logfile>
</eventlog>
"""


@attrs.frozen(kw_only=True)
class Server:
    """A ZEO server and its files.

    :param title: for messages, such as ``study 'add'``.
    :param directory: ``.bd`` or ``.wf``.
    :param data_name: the name of the FileStorage in it.
    :param tcp: (host, port) to listen on instead of a Unix socket.
    """

    title: str
    directory: Path
    data_name: str
    tcp: tuple[str, int] | None = None

    @property
    def data(self) -> Path:
        return self.directory / self.data_name

    @property
    def config(self) -> Path:
        return self.directory / "zeo.conf"

    @property
    def address(self) -> Address:
        """Where the server listens: what its configuration file says, else what we would choose."""
        if self.tcp:
            return self.tcp
        return configured_address(self.config) or str(socket_path(self.directory, "zeo.socket"))

    @property
    def is_local(self) -> bool:
        """Whether the server runs, or would be started, on this machine."""
        return self.tcp is None or _is_this_machine(self.tcp[0])

    @property
    def daemon(self) -> Daemon:
        return Daemon(
            title=f"the server of {self.title}",
            directory=self.directory,
            stem="zdaemon",
            program=("runzeo", "-C", str(self.config)),
            program_config=self.config,
            transcript=self._output,
        )

    @property
    def _output(self) -> Path:
        """What the server prints: why it cannot open its data, for one."""
        return self.directory / "zeo.out"

    def is_up(self) -> bool:
        return is_accepting(self.address)

    def log_tail(self, lines: int = 5) -> str:
        """The end of the server's log, and of what it printed."""
        found: list[str] = []
        for path in (self.directory / "zeo.log", self._output):
            try:
                found += path.read_text(errors="replace").splitlines()[-lines:]
            except OSError:
                continue
        return "\n".join(found)

    def write_config(self) -> None:
        private_directory(self.directory)
        address = self.tcp or str(socket_path(self.directory, "zeo.socket"))
        text = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self.config.write_text(
            in_zconfig(
                _CONFIG.format(
                    address=text,
                    data=self.data,
                    blobs=self.directory / "zeo.blob",
                    log=self.directory / "zeo.log",
                )
            )
        )


def parse_host(host: str) -> Path | tuple[str, int]:
    """Read ``zeo://<directory>`` or ``zeo://<host>:<port>``."""
    match = re.fullmatch(r"zeo://(?:([^/:]+):(\d+)|(/.*))", host)
    if not match:
        raise ConfigError(
            f"cannot read the host {host!r}", hint="Write zeo://<directory> or zeo://<host>:<port>."
        )
    return Path(match[3]) if match[3] else (match[1], int(match[2]))


def study_server(name: str, directory: Path, host: str | None) -> Server:
    """The server of a study.

    :param name: the task manager's name.
    :param host: ``host:`` of motoko.yaml, or None.
    """
    place = parse_host(host) if host else directory
    title = f"study {name!r}"
    if isinstance(place, tuple):
        return Server(title=title, directory=directory / ".bd", data_name="bd.zeo", tcp=place)
    return Server(title=title, directory=place / ".bd", data_name="bd.zeo")


def configured_address(config: Path) -> Address | None:
    """The address in a ``zeo.conf``; None if there is no such file."""
    try:
        match = re.search(r"^\s*address\s+(\S.*?)\s*$", config.read_text(), re.MULTILINE)
    except OSError:
        return None
    if not match:
        return None
    tcp = re.fullmatch(r"([^/:]+):(\d+)", match[1])
    return (tcp[1], int(tcp[2])) if tcp else match[1].replace("$$", "$")


def _is_this_machine(host: str) -> bool:
    if host in ("localhost", socket.gethostname(), socket.getfqdn()):
        return True
    try:
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def start_servers(servers: Iterable[Server], *, timeout_s: float = 30.0) -> list[Server]:
    """Start those that do not accept connections, side by side; answer the ones that were started.

    :raises StudyError: one of them does not accept connections in time, or cannot run here.
    """
    down = [server for server in servers if not server.is_up()]
    for server in down:
        if not server.is_local:
            raise StudyError(
                f"{server.title} is served at {server.tcp}, which does not answer",
                hint="Start the server there, or mend `host:` in motoko.yaml.",
            )
        if not server.data.exists():
            raise StudyError(
                f"{server.title} has no database yet: {server.data} is missing",
                hint="`motoko create` makes it; `motoko run` creates what is missing.",
            )
    with ExitStack() as turns:
        # Two processes that start the same server side by side would remove each other's socket. All take
        # their turns in the same order, so that nobody waits in a circle.
        for directory in sorted({server.directory for server in down}):
            turns.enter_context(taking_turns(directory / "start.lock"))
        down = [server for server in down if not server.is_up()]
        for server in down:
            _start(server)
        for server in down:
            if not wait_until(server.is_up, timeout_s):
                stop_servers(down)
                raise StudyError(
                    f"the server of {server.title} does not accept connections at {server.address} "
                    f"after {timeout_s:g} s",
                    hint=f"The end of {server.directory / 'zeo.log'}:\n{server.log_tail()}",
                )
    return down


def _start(server: Server) -> None:
    if isinstance(server.address, str):
        # What a dead server left behind would be taken for a live one by BlackDynamite.
        Path(server.address).unlink(missing_ok=True)
    server.write_config()
    server.daemon.start()


def stop_servers(servers: Sequence[Server]) -> list[Server]:
    """Stop the servers that run on this machine; answer the ones that were running."""
    daemons = {server.daemon: server for server in servers if server.is_local}
    return [daemons[daemon] for daemon in stop_daemons(list(daemons))]
