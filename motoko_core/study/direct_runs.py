"""Runs read from the database's file and stored as they are, without ZODB's objects in between.

Of what a launcher spends on a short run, most would go into loading and storing its objects, which nobody
else uses. What one transaction does with it here is the same, and so is what the server makes of two that
meet: each run is stored with the transaction that it was read from, and the server merges or refuses.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from BTrees.OOBTree import OOBTree
from ZODB.utils import p64, u64

from motoko_core.session import transact
from motoko_core.study.bulk_client import PassingTransaction
from motoko_core.study.plain_objects import (
    JOB,
    RUN,
    PlainRecord,
    Records,
    Reference,
    Unexpected,
    plain_record,
    tree_data,
    tree_state,
)
from motoko_core.study.runs import ConfigFile, Run, SessionRuns, file_id

if TYPE_CHECKING:
    from motoko_core.study.database import StudyDatabase

_SCALARS = frozenset({str, int, float, bool, type(None), bytes, complex, datetime.datetime})
#: Configuration files that are kept: most runs have the same.
_FILES = 256


_id_of = lru_cache(maxsize=10)(file_id)


class DirectRuns:
    """The runs of a study on this machine: :class:`~motoko_core.study.runs.Runs` without a session.

    Only what is as usual is understood, like in :mod:`motoko_core.study.plain_objects`; for anything else,
    :class:`~motoko_core.study.plain_objects.Unexpected` is raised, and a session is to do it.

    :param study: its index is filled.
    """

    def __init__(self, study: StudyDatabase) -> None:
        self._study = study
        self._records: Records | None = None
        self._runs: dict[int, _DirectRun] = {}
        self._files: dict[Any, ConfigFile] = {}

    def begin(self) -> None:
        """See what was committed so far.

        :raises Unexpected: that is not to be had here.
        """
        self._runs.clear()
        storage, index = self._study.db.storage, self._study.index
        end, file = p64(u64(storage.lastTransaction()) + 1), storage.file
        self._records = file and file.records(end)
        if self._records is None:
            raise Unexpected("the database's file cannot be read here")
        # Which runs and jobs there are is known from it alone.
        if index.snapshot < end and index.lock.acquire(blocking=False):  # nobody waits for who fills it anew
            try:
                index.refresh()
            finally:
                index.lock.release()
        if index.snapshot < end:
            raise Unexpected("the index is behind what can be read")

    def get(self, run_ids: Iterable[int]) -> Iterator[tuple[int, Run]]:
        rows = self._study.index.rows
        for run_id in run_ids:
            run = self._runs.get(run_id)
            if run is None and run_id not in rows:
                continue
            if run is None:
                oid = rows.oid(run_id)
                if oid is None:
                    raise Unexpected(f"run {run_id} is of another class")
                run = self._runs[run_id] = _DirectRun(self._record(u64(oid), RUN), self._read)
            yield run_id, run

    def _record(self, oid: int, kind: Any) -> PlainRecord:
        data, _ = self._read(oid)
        record = plain_record(data)
        if record.kind != kind or not record.is_usual or type(record.entries) is not Reference:
            raise Unexpected(f"object {oid} is not as usual")
        if not all(map(_is_plain, record.attributes.values())):
            raise Unexpected(f"object {oid} has a value that is not one of Python's own")
        return record

    def _read(self, oid: int) -> tuple[bytes, bytes]:
        """An object as it is stored, and the transaction that wrote it."""
        assert self._records is not None
        return self._records.stored(oid)

    def job(self, job_id: Any) -> Mapping[str, Any] | None:
        oid = self._study.index.jobs.oid(job_id)
        if oid is None:
            raise Unexpected(f"job {job_id!r} is not known, or of another class")
        record = self._record(u64(oid), JOB)
        data, _ = self._read(record.entries.oid)
        return {**record.attributes, **_entries_in(data)}

    def has_job(self, job_id: Any) -> bool:
        if job_id not in self._study.index.jobs:
            raise Unexpected(f"job {job_id!r} is not known")
        return True

    def file(self, file_id: Any) -> ConfigFile | None:
        found = self._files.get(file_id)
        if found is None:
            title = f"configuration files of {self._study.config.name}"
            found = transact(title, lambda: SessionRuns(self._study).file(file_id))
            if found is not None:
                if len(self._files) >= _FILES:
                    self._files.clear()
                self._files[file_id] = found
        return found

    def add_file(self, name: str, content: str) -> str:
        found = _id_of(name, content)
        if self.file(found) is None:
            raise Unexpected(f"the file {name} is not in the study yet")
        return found

    def commit(self, title: str) -> None:
        """Store what has changed.

        :raises ~ZODB.POSException.ConflictError: somebody has changed the same; nothing is stored.
        :raises ~ZEO.Exceptions.ClientDisconnected: the server does not answer.
        """
        new = [(run.oid, run.tid, run.data()) for run in self._runs.values() if run.has_changed()]
        self._runs.clear()
        if not new:
            return
        txn, db = PassingTransaction(description=title), self._study.db
        storage, oids = db.storage, {oid for oid, _, _ in new}

        def tell(tid: bytes) -> None:
            """Tell the connections of this process; the server tells the others."""
            db._mvcc_storage._invalidate_finish(tid, oids, None)

        try:
            storage.tpc_begin(txn)
            for oid, tid, data in new:
                storage.store(oid, tid, data, "", txn)
            storage.tpc_vote(txn)
            storage.tpc_finish(txn, tell)
        except BaseException:
            storage.tpc_abort(txn)
            raise


class _DirectRun:
    def __init__(self, record: PlainRecord, read: Callable[[int], tuple[bytes, bytes]]) -> None:
        self._record = record
        self._read = read
        data, self.tid = read(record.entries.oid)
        self.entries: MutableMapping[str, Any] = _entries_in(data)
        self._before = dict(self.entries)

    @property
    def attributes(self) -> Mapping[str, Any]:
        # A copy: the record may be kept for other transactions, and a generator gets these as options.
        return copy.deepcopy(self._record.attributes) if self._record.attributes else {}

    @property
    def configfiles(self) -> Iterable[str]:
        reference = self._record.configfiles
        if type(reference) is not Reference:
            raise Unexpected(f"{reference!r} instead of the configuration files")
        state = tree_state(self._read(reference.oid)[0]) or ((),)
        if len(state) != 1:
            raise Unexpected("more configuration files than one object holds")
        found: tuple[str, ...] = state[0]
        return found

    # What is stored is the object with the entries.

    @property
    def oid(self) -> bytes:
        oid: bytes = p64(self._record.entries.oid)
        return oid

    def has_changed(self) -> bool:
        before = self._before
        return self.entries != before or any(type(v) is not type(before[k]) for k, v in self.entries.items())

    def data(self) -> bytes:
        """:raises Unexpected: there are more entries than one object holds."""
        state = OOBTree(self.entries).__getstate__()
        if state is None or len(state) != 1:
            raise Unexpected("more entries than one object holds")
        return tree_data(state)


def _entries_in(data: bytes) -> dict[str, Any]:
    """The entries of a run or a job, as they are stored."""
    tree = tree_state(data)
    if tree is None or len(tree) != 1:
        raise Unexpected("more entries than one object holds, or none")
    (bucket,) = tree[0][0]
    if not all(map(_is_plain, bucket[1::2])):
        raise Unexpected("an entry that is not one of Python's own")
    return dict(zip(bucket[::2], bucket[1::2], strict=True))


def _is_plain(value: Any) -> bool:
    """Whether a value is stored again as it was, whatever its class may do."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return kind in (list, tuple, set, frozenset) and all(map(_is_plain, value))
