"""Database files that are empty, torn, damaged, locked, or not to be written: refused, or cut and said so."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import transaction
from BTrees.OOBTree import OOBTree
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from motoko_core.errors import DatabaseFault
from motoko_core.study.client import StudyClient
from motoko_core.study.database import Database
from motoko_core.study.datafile import examine
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from tests.faults import last_transaction, overwrite, respect_permissions
from tests.processes import ROOT

Captured = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def _heard(caplog: Captured) -> None:
    caplog.set_level(logging.WARNING, "motoko")


def write(server: Server, *values: str) -> None:
    """Commit values, each in a transaction of its own, through a server that is stopped afterwards."""
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    for value in values:
        connection.root().setdefault("values", OOBTree())[value] = value * 100
        manager.commit()
    connection.close()
    database.close()
    stop_servers([server])


def read(server: Server) -> list[str]:
    database = Database(server)
    connection = database.open(transaction.TransactionManager())
    found = list(connection.root().get("values", ()))
    connection.close()
    database.close()
    return found


def kill(server: Server) -> None:
    # The manager, which is older, first: it would start the server again.
    for process in sorted(server.daemon.processes(), key=lambda process: process.create_time()):
        process.kill()
    stop_servers([server])


def refused(server: Server) -> DatabaseFault:
    with pytest.raises(DatabaseFault) as raised:
        start_servers([server])
    assert server.daemon.processes() == []
    assert raised.value.exit_code == 2
    return raised.value


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty (0 bytes)"),
        (b"PK\3\4and more", r"begins with b'PK\x03\x04'"),
        (b"FS30" + bytes(36), "ends within its first transaction"),
    ],
)
def test_file_that_is_no_database_is_refused(server: Server, content: bytes, text: str) -> None:
    server.data.write_bytes(content)
    error = refused(server)
    assert str(error).startswith(f"there is no database of study 'it': {server.data} {text}")
    assert server.data.read_bytes() == content


def test_directory_in_the_place_of_a_database_is_refused(server: Server) -> None:
    server.data.unlink()
    server.data.mkdir()
    assert str(refused(server)).startswith(f"there is no database of study 'it': {server.data} is no file")


def test_transaction_that_a_killed_server_has_not_finished_is_cut_off_and_kept(
    server: Server, caplog: Captured
) -> None:
    write(server, "a", "b")
    size = server.data.stat().st_size
    start_servers([server])
    client = StudyClient(server, wait_timeout=10)
    txn = TransactionMetaData()
    client.tpc_begin(txn)
    client.store(p64(1000), z64, b"x" * 500, "", txn)
    client.tpc_vote(txn)
    torn = server.data.stat().st_size - size
    assert torn > 500
    kill(server)
    client.tpc_end(txn)
    client.close()

    start_servers([server])
    kept = server.data.with_name("bd.zeo.tr0")
    (line,) = caplog.messages
    assert line == (
        f"study 'it': {server.data}: its last {torn} bytes, a transaction that was never complete, "
        f"were cut off; they are kept in {kept}"
    )
    assert kept.stat().st_size == torn
    assert server.data.stat().st_size == size
    assert read(server) == ["a", "b"]


def test_torn_header_at_the_end_is_cut_off(server: Server, caplog: Captured) -> None:
    write(server, "a")
    with server.data.open("ab") as file:
        file.write(b"\0" * 7)
    assert read(server) == ["a"]
    assert "its last 7 bytes, a transaction" in caplog.text
    assert "nothing can have been in them" in caplog.text


def test_start_of_a_whole_database_says_nothing(server: Server, caplog: Captured) -> None:
    write(server, "a")
    start_servers([server])
    kill(server)
    server.data.with_name("bd.zeo.index").unlink()
    assert read(server) == ["a"]
    assert caplog.messages == []


def mend(error: DatabaseFault) -> None:
    """Execute the command that the error's hint tells."""
    assert error.hint is not None
    (line,) = (line for line in error.hint.splitlines() if "fsrecover" in line)
    subprocess.run(line, shell=True, check=True, capture_output=True, timeout=60)


def test_damage_in_the_middle_is_refused_and_the_command_that_is_told_mends_it(server: Server) -> None:
    write(server, "a", "b")
    middle = last_transaction(server.data)
    write(server, "c", "d")
    server.data.with_name("bd.zeo.index").unlink()
    overwrite(server.data, middle, b"\xff" * 300)
    damaged = server.data.read_bytes()

    error = refused(server)
    assert str(error).startswith(f"{server.data}: the database of study 'it' is damaged: ")
    assert "`motoko kill`" in str(error)
    assert server.data.read_bytes() == damaged

    mend(error)
    assert read(server) == ["a", "b", "c", "d"]  # the bucket is written whole with each of them
    assert server.data.with_name("damaged.bd.zeo").read_bytes() == damaged


def test_damage_that_looks_like_a_torn_end_does_not_cut_off_what_follows(server: Server) -> None:
    write(server, "a", "b")
    middle = last_transaction(server.data)
    write(server, "c", "d")
    server.data.with_name("bd.zeo.index").unlink()
    overwrite(server.data, middle + 8, b"\0\0\0\0\x7f\xff\xff\xff")  # longer than the file
    error = refused(server)
    assert f"the bytes from {middle} on are no transaction, but transactions follow them" in str(error)
    mend(error)
    assert read(server) == ["a", "b", "c", "d"]


def test_damage_that_only_the_server_meets_is_refused_as_well(server: Server) -> None:
    """It looks at the last transactions, also when the database was closed in good order."""
    write(server, "a", "b")
    overwrite(server.data, last_transaction(server.data) + 30, b"\xff" * 100)
    assert examine(server.title, server.data) is None
    error = refused(server)
    assert "is damaged: " in str(error)
    mend(error)
    assert read(server) == ["a"]


def test_database_that_a_living_process_holds_is_refused_with_its_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.study.datafile._LOCK_PATIENCE_S", 0.1)
    script = """
import sys
from ZODB.FileStorage import FileStorage
storage = FileStorage(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(server.data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        error = refused(server)
        assert f"{server.data} is locked by process {other.pid} ({sys.executable} -c " in str(error)
    finally:
        other.communicate()
    assert start_servers([server]) == [server]


def without_permission(server: Server, code: str) -> subprocess.CompletedProcess[str]:
    script = f"""
import sys
from pathlib import Path
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers
server = Server(title="study 'it'", directory=Path(sys.argv[1]), data_name="bd.zeo")
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", script, str(server.directory)],
        cwd=ROOT,
        preexec_fn=respect_permissions,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", [".bd", "bd.zeo"])
def test_what_may_not_be_written_is_refused(server: Server, name: str) -> None:
    place: Path = server.directory if name == ".bd" else server.data
    before = sorted(server.directory.iterdir())
    mode = place.stat().st_mode
    place.chmod(mode & 0o555)
    try:
        done = without_permission(server, "start_servers([server])")
    finally:
        place.chmod(mode)
    assert f"DatabaseFault: {place} is not writable for you, and the database of study 'it'" in done.stderr
    assert sorted(server.directory.iterdir()) == before
