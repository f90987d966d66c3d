"""Asking servers how they are."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import threading
from pathlib import Path

import attrs
import pytest
import transaction

from motoko_core.daemons import wait_until
from motoko_core.study.database import Database
from motoko_core.study.health import NO_DATABASE, NOT_CREATED, is_silent, look, look_at_all
from motoko_core.study.probe import DOWN, SILENT, UP, NoAnswer, probe
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers
from tests.ports import tcp_port

__all__ = ["tcp_port"]


def runzeo_pid(server: Server) -> int:
    (pid,) = (p.pid for p in server.daemon.processes() if Path(p.cmdline()[1]).name == "runzeo")
    return pid


@pytest.mark.parametrize("tcp", [False, True])
def test_running_server_tells_its_clients_and_last_commit(server: Server, tcp: bool, tcp_port: int) -> None:
    if tcp:
        server = attrs.evolve(server, tcp=("127.0.0.1", tcp_port))
        assert look(server).address == f"127.0.0.1:{server.address[1]}"
    assert look(server).state == DOWN
    before = datetime.datetime.now(datetime.timezone.utc)
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    connection.root()["x"] = 1
    manager.commit()
    health = look(server)
    assert health.state == UP
    assert health.clients == 1
    assert health.waiting == 0
    assert health.pid == runzeo_pid(server)
    assert health.size == server.data.stat().st_size
    assert health.last_commit is not None
    assert health.last_commit >= before - datetime.timedelta(seconds=1)
    connection.close()
    database.close()
    assert wait_until(lambda: look(server).clients == 0, 10)


def test_server_that_was_never_created(tmp_path: Path) -> None:
    server = Server(title="study 'it'", directory=tmp_path / ".bd", data_name="bd.zeo")
    health = look(server)
    assert (health.state, health.size, health.pid) == (NOT_CREATED, None, None)


def test_file_that_is_no_database_is_not_merely_down(server: Server) -> None:
    assert look(server).state == DOWN
    server.data.write_bytes(b"")
    assert (look(server).state, look(server).size) == (NO_DATABASE, 0)


def test_paused_server_does_not_answer(server: Server) -> None:
    start_servers([server])
    pid = runzeo_pid(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(NoAnswer):
            probe(server.address, timeout_s=0.1)
        found = look_at_all([server] * 8)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [(health.state, health.pid) for health in found] == [(SILENT, pid)] * 8
    assert wait_until(lambda: look(server).state == UP, 10)


def test_somebody_else_on_the_port_does_not_answer(server: Server) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        other = attrs.evolve(server, tcp=("127.0.0.1", listener.getsockname()[1]))
        assert look(other).state == SILENT


def test_what_packing_and_cutting_have_left_is_listed(server: Server) -> None:
    server.data.with_name("bd.zeo.old").write_bytes(b"12345")
    server.data.with_name("bd.zeo.tr0").write_bytes(b"12")
    assert look(server).beside == {"bd.zeo.old": 5, "bd.zeo.tr0": 2}


def test_server_that_is_at_work_is_not_silent(server: Server) -> None:
    # This process plays its part: it listens, and does not answer; a lock file says who has the database.
    server.data.with_name("bd.zeo.lock").write_text(f"{os.getpid()}\n")
    has_ended = threading.Event()

    def work() -> None:
        while not has_ended.is_set():
            sum(range(10_000))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server.address))
        listener.listen()
        working = threading.Thread(target=work)
        working.start()
        try:
            assert not is_silent(server)
        finally:
            has_ended.set()
            working.join()
