"""Reading a database's objects from its file, beside the server that writes it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.study import local_file
from motoko_core.study.local_file import LocalFile
from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.record_file import EarlierRecords, RecordFile
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state, states

ONE_STUDY = "task_managers: {mult: }\norchestrator: orchestrator.main\n"


class Written:
    """A database that is being written, and what its storage answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()
        self.thing = self.connection.root()["thing"] = PersistentMapping()
        self.write("first")

    def open(self) -> None:
        self.storage = FileStorage(str(self.path))
        self.db = ZODB.DB(self.storage)
        self.manager = transaction.TransactionManager()
        self.connection = self.db.open(self.manager)

    def close(self) -> None:
        self.connection.close()
        self.db.close()

    def copy_over(self, backup: bytes) -> None:
        """Restore what the file was before, as ``cp`` does: it is the same file for the operating system."""
        self.close()
        Path(f"{self.path}.index").unlink()
        self.path.write_bytes(backup)
        self.open()
        self.thing = self.connection.root()["thing"]

    def write(self, word: str) -> bytes:
        """Commit a word; answer the id after the transaction's."""
        self.thing["word"] = word
        self.manager.commit()
        return self.end

    @property
    def end(self) -> bytes:
        return p64(u64(self.storage.lastTransaction()) + 1)

    @property
    def oid(self) -> bytes:
        oid: bytes = self.thing._p_oid
        return oid

    def local(self) -> LocalFile:
        return LocalFile(self.path, RecordFile(self.path))

    def agree(self, local: LocalFile, before: bytes) -> bool:
        opened(local, before)
        found = local.load_before(self.oid, before)
        assert found is not None
        expected: tuple[bytes, bytes, bytes | None] = self.storage.loadBefore(self.oid, before)
        return found[:2] == expected[:2] and found[2] in (expected[2], None)


def opened(local: LocalFile, before: bytes) -> bool:
    """Whether a transaction is covered when what has taken the file's place has been read."""
    if not local.covers(before) and (opening := local._opening) is not None:
        opening.join()
    return local.covers(before)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    database = Written(tmp_path / "data.fs")
    yield database
    database.close()


def test_each_revision_is_what_the_storage_says(written: Written) -> None:
    local = written.local()
    ends = [written.end, *(written.write(word) for word in ("second", "third", "x" * 5000))]
    for before in ends:  # those in between as well, when the file was followed to its end
        assert written.agree(local, before)
    for before in reversed(ends):
        assert local.load_before(written.oid, before) == written.storage.loadBefore(written.oid, before)


def test_what_was_not_there_yet_is_asked_of_the_server(written: Written) -> None:
    local, before = written.local(), written.end
    written.connection.root()["other"] = other = PersistentMapping()
    written.manager.commit()
    assert local.load_before(other._p_oid, before) is None
    assert local.load_before(other._p_oid, written.end) is not None
    assert local.load_before(p64(10**6), written.end) is None


def test_copy_that_has_gone_another_way_is_not_taken_for_the_file(written: Written, tmp_path: Path) -> None:
    """It has later transactions than the one that the server has told of last, but not that one."""
    before = written.end
    shutil.copy(written.path, tmp_path / "copy.fs")
    told = written.write("of the server")
    copy = Written(tmp_path / "copy.fs")
    local = copy.local()
    assert local.covers(copy.end)
    assert not local.covers(told)
    assert local.load_before(written.oid, told) is None
    assert local.records(told) is None
    assert written.agree(local, before)  # up to there they are the same
    copy.close()


def test_transaction_that_the_file_does_not_have_is_not_covered(written: Written) -> None:
    local = written.local()
    assert local.covers(written.end)
    later = p64(u64(written.end) + 10)
    assert not local.covers(later)
    assert local.load_before(written.oid, later) is None
    assert local.records(later) is None
    assert written.agree(local, written.end)


def test_unfinished_transaction_is_not_seen(written: Written) -> None:
    local, before = written.local(), written.end
    txn = ZODB.Connection.TransactionMetaData()
    written.storage.tpc_begin(txn)
    found = written.storage.load(written.oid)
    written.storage.store(written.oid, found[1], found[0], "", txn)
    written.storage.tpc_vote(txn)
    assert not local.covers(p64(u64(before) + 10))
    assert written.agree(local, before)
    written.storage.tpc_abort(txn)
    assert written.agree(local, written.write("after it"))


def test_transaction_that_is_taken_back_while_the_file_is_read_does_no_harm(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, now = written.local(), written.path.stat()
    longer = SimpleNamespace(st_size=now.st_size + 5000, st_ino=now.st_ino, st_dev=now.st_dev)
    with monkeypatch.context() as patch:
        # What the file was when a transaction had voted, which the storage has cut off since.
        patch.setattr("os.fstat", lambda _: longer)
        assert not local.covers(p64(u64(written.end) + 10))
    assert written.agree(local, written.write("after it"))


def test_packed_file_is_opened_again(written: Written) -> None:
    local = written.local()
    for word in ("second", "third"):
        written.write(word)
    written.storage.pack(time.time() + 1, referencesf)
    assert written.agree(local, written.end)
    assert written.agree(local, written.write("after packing"))


def undo(written: Written) -> None:
    written.db.undo(written.storage.undoLog(0, 1)[0]["id"], written.manager.get())
    written.manager.commit()


def test_data_of_an_undone_transaction_is_that_of_an_earlier_one(written: Written) -> None:
    local = written.local()
    written.write("second")
    for _ in range(3):  # each undoes the one before it
        undo(written)
        assert written.agree(local, written.end)
    assert written.agree(local, written.write("third"))


def test_object_whose_creation_was_undone_is_asked_of_the_server(written: Written) -> None:
    local = written.local()
    written.connection.root()["other"] = other = PersistentMapping()
    written.manager.commit()
    oid, before = other._p_oid, written.end
    undo(written)
    assert local.load_before(oid, written.end) is None
    assert local.load_before(oid, before) is not None


def test_damaged_file_is_not_read_any_more(written: Written) -> None:
    local, before = written.local(), written.end
    file = local._file
    assert file is not None
    file._places[u64(written.oid)] = file._places[0]  # where another object is
    assert local.load_before(written.oid, before) is None
    assert not local.covers(before)


def test_file_that_cannot_be_opened_again_is_not_read_any_more(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> RecordFile:
        raise Unexpected("it is odd")

    local = written.local()
    monkeypatch.setattr(local_file, "RecordFile", refuse)
    written.storage.pack(time.time() + 1, referencesf)
    written.write("after packing")
    assert not opened(local, written.end)
    assert local.is_useless


def test_file_that_is_just_being_replaced_is_read_again_later(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [True]

    def open_file(path: Path) -> RecordFile:
        if missing:
            raise FileNotFoundError(missing.pop())
        return RecordFile(path)

    local = written.local()
    monkeypatch.setattr(local_file, "RecordFile", open_file)
    written.storage.pack(time.time() + 1, referencesf)
    end = written.write("after packing")
    assert not opened(local, end)
    assert written.agree(local, end)


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """No other file is opened before it is set."""
    event = threading.Event()

    def open_slowly(path: Path) -> RecordFile:
        event.wait()
        return RecordFile(path)

    monkeypatch.setattr(local_file, "RecordFile", open_slowly)
    return event


def test_nobody_waits_until_what_has_taken_the_place_of_the_file_was_read(
    written: Written, go_on: threading.Event
) -> None:
    local, before = written.local(), written.end
    written.storage.pack(time.time() + 1, referencesf)
    end = written.write("after packing")
    for _ in range(2):
        assert local.load_before(written.oid, end) is None
    assert local.load_before(written.oid, before) is not None
    go_on.set()
    assert written.agree(local, end)


def test_what_is_read_is_what_was_checked(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has opened what has taken the file's place, and that is not the server's."""
    shutil.copy(written.path, tmp_path / "copy.fs")
    copy = Written(tmp_path / "copy.fs")
    local, end = written.local(), written.write("of the server")
    mine, other, has = local._file, RecordFile(copy.path), RecordFile.has

    def opened_meanwhile(file: RecordFile, transaction: bytes) -> bool:
        answer = has(file, transaction)
        if answer:
            local._file = other
        return answer

    monkeypatch.setattr(RecordFile, "has", opened_meanwhile)
    expected = written.storage.loadBefore(written.oid, end)[:2]
    for _ in range(2):  # it has to follow the file; it has it
        found = local.load_before(written.oid, end)
        assert found is not None
        assert found[:2] == expected
        local._file = mine
        records = local.records(end)
        assert records is not None
        assert records.stored(u64(written.oid)) == expected
        local._file = mine
    copy.close()


def test_file_that_was_given_up_stays_so_whatever_was_being_opened(
    written: Written, go_on: threading.Event
) -> None:
    local, before = written.local(), written.end
    written.storage.pack(time.time() + 1, referencesf)
    assert not local.covers(written.write("after packing"))
    file, opening = local._file, local._opening
    assert file is not None
    assert opening is not None
    file._places[u64(written.oid)] = file._places[0]  # damaged: where another object is
    assert local.load_before(written.oid, before) is None
    go_on.set()
    opening.join()
    assert local.is_useless


def test_file_that_a_backup_was_copied_over_is_not_followed(written: Written) -> None:
    backup = written.path.read_bytes()
    written.write("lost")
    local, size = written.local(), written.path.stat().st_size
    written.copy_over(backup)
    end = written.write("here")
    assert written.path.stat().st_size == size  # it ends where the other one did
    assert not local.covers(end)
    assert local.is_useless


def test_file_that_a_backup_was_copied_over_is_opened_anew(written: Written) -> None:
    backup = written.path.read_bytes()
    written.write("lost")
    local = written.local()
    written.copy_over(backup)
    end = written.write("here")
    with pytest.raises(Unexpected, match="copied over"):
        local.latest()
    assert not local.is_at_its_place
    assert written.agree(written.local(), end)


def test_records_stay_what_they_were(written: Written) -> None:
    local = written.local()
    records = local.records(written.end)
    assert records is not None
    before = records.stored(u64(written.oid))
    assert local.covers(written.write("second"))
    assert records.stored(u64(written.oid)) == before
    with pytest.raises(Unexpected, match="no data before"):
        EarlierRecords(RecordFile(written.path), p64(1)).stored(u64(written.oid))


# ------------------------------------------------------------------ beside a server


def test_sessions_read_the_file_and_see_what_others_commit(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    database = workflow.mult.database
    assert database.index.rows
    storage = database.db.storage
    assert storage.file is not None
    asked: list[bytes] = []
    load = storage._server.load_before
    storage._server.load_before = lambda oid, tid: asked.append(oid) or load(oid, tid)
    for state in ("START", "FINISHED"):
        set_state(workflow, reference, state)
        assert states(workflow) == {number(reference): state}
    assert asked == []


def test_server_that_was_started_again_is_asked_until_the_index_has_read_the_file(
    make_workflow: Callable[..., Workflow],
) -> None:
    workflow = make_workflow(studies=("mult",), yaml=ONE_STUDY)
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    (reference,) = create_tasks(workflow, x=1)
    database = workflow.mult.database
    database.db.storage.file = LocalFile(database.server.data, RecordFile(database.server.data))
    stop_servers([database.server])
    # Who reads now is told that nobody answers.
    assert wait_until(lambda: not database.db.storage.is_connected() and database.db.storage.file is None, 10)
    start_servers([database.server])
    assert wait_until(lambda: database.db.storage.is_connected() and database.db.storage.file is None, 10)
    assert states(workflow) == {number(reference): "CREATED"}
    assert database.db.storage.file is not None
