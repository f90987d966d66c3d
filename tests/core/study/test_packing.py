"""Packing through a running server."""

from __future__ import annotations

import pytest
import transaction

from motoko_core.daemons import wait_until
from motoko_core.errors import DatabaseFault, StudyError
from motoko_core.study import packing
from motoko_core.study.database import Database
from motoko_core.study.packing import pack
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from tests.faults import limit_files


@pytest.fixture(autouse=True)
def _no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MARGIN_S", 0.0)


def write(server: Server, times: int = 50) -> None:
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    for number in range(times):
        connection.root()["x"] = f"{number:04}" * 500
        manager.commit()
    connection.close()
    database.close()


def last(server: Server) -> str:
    database = Database(server)
    connection = database.open(transaction.TransactionManager())
    value = str(connection.root()["x"])
    connection.close()
    database.close()
    return value[:4]


def test_packing_drops_what_is_outdated_and_keeps_a_copy(server: Server) -> None:
    write(server)
    packed = pack(server)
    assert packed.before > 100_000
    assert packed.after < 5_000
    assert packed.after == server.data.stat().st_size
    assert packed.copy == packed.before
    assert last(server) == "0049"
    stop_servers([server])
    assert last(server) == "0049"


def test_what_is_young_is_kept(server: Server) -> None:
    write(server)
    packed = pack(server, days=1)
    assert packed.after == packed.before
    assert packed.copy is None


def test_transaction_that_began_before_reads_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MARGIN_S", 30.0)
    write(server, 3)
    database = Database(server)
    connection = database.open(transaction.TransactionManager())
    write(server, 2)
    assert wait_until(lambda: database.db.storage.lastTransaction() > connection._storage._start, 10)
    pack(server)
    assert connection.root()["x"][:4] == "0002"
    connection.close()
    database.close()


def test_server_that_is_down_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_CONNECT_TIMEOUT_S", 0.1)
    with pytest.raises(StudyError, match="the server of study 'it' does not answer"):
        pack(server)


def test_disk_without_room_for_the_copy_leaves_the_database_as_it_was(server: Server) -> None:
    write(server)
    start_servers([server])
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    connection.root()["large"] = "x" * 200_000
    manager.commit()
    size = server.data.stat().st_size
    limit_files(server, 100_000)
    with pytest.raises(DatabaseFault, match="cannot pack study 'it': File too large; the disk has") as raised:
        pack(server)
    assert raised.value.exit_code == 2
    limit_files(server, -1)
    assert server.data.stat().st_size == size
    assert not server.data.with_name("bd.zeo.pack").exists()
    connection.root()["x"] = "new!"
    manager.commit()
    connection.close()
    database.close()
    assert pack(server).after < size
    assert last(server) == "new!"
