"""The ZEO servers: one per study, and one for the workflow variables.

Layout and file names are BlackDynamite's (``base_zeo.py``): its tools read ``.bd/zeo.conf`` to find the
address, so a socket in another place is found too.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import attrs

from motoko_core.daemons import (
    Daemon,
    in_zconfig,
    is_accepting,
    private_directory,
    socket_path,
)
from motoko_core.errors import ConfigError
from motoko_core.study.probe import Address

# BlackDynamite reads the address from here: it has to be the first word of its section.
_CONFIG = """\
%import motoko_core.study

# A client that lost its connection hears which objects have changed meanwhile, if the queue holds all the
# transactions that it missed; otherwise it has to read everything again. ZEO's 100 are gone in a second.
# A client that stands still between the two phases of its commit keeps everybody else from committing; ZEO
# itself would wait for ever. Two minutes are more than the largest commits take.
# There is no cache to set: the server reads through the system's.
<zeo>
  address {address}
  invalidation-queue-size 10000
  transaction-timeout 120
</zeo>

<motokostorage>
  path {data}
  blob-dir {blobs}
</motokostorage>

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
        said = None if self._is_copied() else configured_address(self.config)
        return said or str(socket_path(self.directory, "zeo.socket"))

    def _is_copied(self) -> bool:
        """Whether the configuration file is that of another database, and came with a copied directory.

        The server that it tells of would change the original.
        """
        served = configured_data(self.config)
        if served is None or served == self.data or not served.exists():
            return False
        return not (self.data.exists() and served.samefile(self.data))

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

    def printed(self) -> str:
        """What the server, or its manager, has printed."""
        try:
            return self._output.read_text(errors="replace")
        except OSError:
            return ""

    def log_tail(self, lines: int = 5) -> str:
        """The end of the server's log, and of what it printed."""
        try:
            log = (self.directory / "zeo.log").read_text(errors="replace")
        except OSError:
            log = ""
        return "\n".join([*log.splitlines()[-lines:], *self.printed().splitlines()[-lines:]])

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
    address = _configured("address", config)
    if address is None:
        return None
    tcp = re.fullmatch(r"([^/:]+):(\d+)", address)
    return (tcp[1], int(tcp[2])) if tcp else address.replace("$$", "$")


def configured_data(config: Path) -> Path | None:
    """The database file that a ``zeo.conf`` tells a server to open; None if there is none."""
    path = _configured("path", config)  # the log's comes later
    return None if path is None else Path(path.replace("$$", "$"))


def _configured(key: str, config: Path) -> str | None:
    """The first value of a key in a ``zeo.conf``."""
    try:
        match = re.search(rf"^\s*{key}\s+(\S.*?)\s*$", config.read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


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
