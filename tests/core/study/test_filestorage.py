"""A disk that is full: the transaction is refused, the database stays whole, and works again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transaction
from BTrees.OOBTree import OOBTree
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from motoko_core.errors import DatabaseFault
from motoko_core.study.database import Database, create_empty
from motoko_core.study.datafile import examine
from motoko_core.study.filestorage import UNCERTAIN, StudyStorage
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from tests.faults import limit_files
from tests.processes import run_python

#: More than Python keeps in the buffer of a file, and less.
SIZES = (50, 3000, 200_000)


def fill(values: Any, manager: Any, size: int) -> DatabaseFault:
    """Commit values until one does not fit; answer the error."""
    for _ in range(10_000):
        values[f"{len(values):05}"] = os.urandom(size)
        try:
            manager.commit()
        except DatabaseFault as error:
            manager.abort()
            return error
    raise AssertionError("it never was full")


def fill_and_go_on(server: Server, full: Callable[[], None], free: Callable[[], None]) -> None:
    """Fill the server's disk with values of all sizes, free it, and see that nothing is lost or torn."""
    database = Database(server)
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    root = connection.root()
    root["large"] = os.urandom(500_000)  # the limit on files concerns what is kept in between as well
    trees = root["trees"] = {size: OOBTree() for size in SIZES}
    manager.commit()
    try:
        for size in SIZES:
            full()
            for _ in range(2):
                error = fill(trees[size], manager, size)
                assert error.exit_code == 2
                assert "the disk is full: the transaction could not be written to the database of" in str(
                    error
                )
                assert str(server.data) in str(error)
            free()
            trees[size]["after"] = b"x"
            manager.commit()
        expected = {size: dict(tree) for size, tree in trees.items()}
        connection.close()
    finally:
        database.close()
    # The server is killed: what is in the file is all that counts.
    for process in server.daemon.processes():
        process.kill()
    stop_servers([server])
    assert examine(server.title, server.data, thorough=True) is None
    database = Database(server)
    connection = database.open(manager)
    assert {size: dict(tree) for size, tree in connection.root()["trees"].items()} == expected
    connection.close()
    database.close()


def test_server_outlives_files_that_may_not_grow(server: Server) -> None:
    start_servers([server])
    fill_and_go_on(
        server,
        full=lambda: limit_files(server, server.data.stat().st_size + 20_000),
        free=lambda: limit_files(server, -1),
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_server_outlives_a_full_disk() -> None:
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr!r}")
    server = Server(title="study 'it'", directory=directory / ".bd", data_name="bd.zeo")
    ballast = directory / "ballast"

    def full() -> None:
        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        ballast.write_bytes(b"x" * max(0, free - 20_000))

    try:
        create_empty(server)
        start_servers([server])
        fill_and_go_on(server, full, lambda: ballast.unlink())
    finally:
        stop_servers([server])
        subprocess.run(["umount", "-l", str(directory)], check=True)
        directory.rmdir()


def test_refused_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither in the file nor in its buffers, nor in those of the temporary file."""
    script = """
        import itertools, os, resource, sys
        from ZODB.Connection import TransactionMetaData
        from ZODB.utils import p64, z64
        from motoko_core.study.filestorage import StudyStorage

        path = sys.argv[1]
        storage = StudyStorage(path)
        numbers = itertools.count(1)
        outcomes = set()

        def commit(size):
            txn = TransactionMetaData()
            storage.tpc_begin(txn)
            try:
                storage.store(p64(next(numbers)), z64, b"x" * size, "", txn)
                storage.tpc_vote(txn)
            except OSError as error:
                storage.tpc_abort(txn)
                return error.strerror
            storage.tpc_finish(txn)
            return "committed"

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

        def limited(limit, size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            outcomes.add(commit(size))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert commit(10) == "committed"
            assert storage.getSize() == os.path.getsize(path), (limit, size)

        for size in (500, 100_000):
            limited(storage.getSize() // 2, size)  # the temporary file is smaller
        for margin, size in itertools.product(range(0, 9000, 450), (10, 900, 5000, 20_000)):
            limited(storage.getSize() + margin, size)
        print(sorted(outcomes), next(numbers) - 1)
    """
    path = tmp_path / "a.fs"
    assert run_python(script, path) == "['File too large', 'committed'] 164"
    assert examine("it", path, thorough=True) is None


def test_commit_whose_end_is_uncertain_ends_the_server(tmp_path: Path) -> None:
    """Its file is closed then, and it would refuse everything for ever."""
    script = """
        import os, subprocess, sys
        code = '''
        import sys
        from ZODB.Connection import TransactionMetaData
        from ZODB.utils import p64, z64
        from motoko_core.study.filestorage import StudyStorage

        class Broken(StudyStorage):
            def _finish_finish(self, tid):  # made for this by ZODB: a disk that fails in fsync
                raise OSError(5, "Input/output error")

        storage = Broken(sys.argv[1])
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        storage.store(p64(1), z64, b"x", "", txn)
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)
        '''
        import textwrap
        print(subprocess.run([sys.executable, "-c", textwrap.dedent(code), sys.argv[1]]).returncode)
    """
    assert run_python(script, tmp_path / "a.fs") == str(UNCERTAIN)


def test_index_that_cannot_be_saved_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.fs"
    storage = StudyStorage(str(path))
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.store(p64(1), z64, b"x", "", txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    index = path.with_name("a.fs.index")
    storage.close()
    index.unlink()
    path.with_name("a.fs.index.index_tmp").symlink_to("/dev/full")
    storage = StudyStorage(str(path))
    assert not index.exists()
    assert storage.load(p64(1))[0] == b"x"
    storage.close()
