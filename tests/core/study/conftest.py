from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoko_core.study.database import create_empty
from motoko_core.study.server import Server
from motoko_core.study.starting import stop_servers


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with an empty database, down."""
    # pytest's own directories are too deep for a Unix socket.
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    server = Server(title="study 'it'", directory=directory / ".bd", data_name="bd.zeo")
    create_empty(server)
    yield server
    stop_servers([server])
    shutil.rmtree(directory)
