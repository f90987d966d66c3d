"""The objects of a database on this machine, read from its file instead of from its server.

An object that its server sends costs a message each way, two changes between threads, and a place in the
client's cache: some 0.2 ms, half of it the server's, which everybody shares. Its file has the same bytes: a
server answers a commit, and announces it, when the file has it.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from ZODB.utils import p64, u64

from motoko_core.study.plain_objects import Unexpected
from motoko_core.study.record_file import EarlierRecords, RecordFile

logger = logging.getLogger("motoko")

#: Data, its transaction, the next one's; as a storage's ``loadBefore`` answers.
Revision = tuple[bytes, bytes, "bytes | None"]


class LocalFile:
    """Follows the file of a database. All methods may be called from any thread.

    It answers only what it is sure of: what it does not, its server has to be asked for.

    :param file: what was taken in of it already.
    """

    def __init__(self, path: Path, file: RecordFile) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: RecordFile | None = file

    def load_before(self, oid: bytes, before: bytes) -> Revision | None:
        """An object as it was before a transaction; None: ask the server."""
        if not self.covers(before):
            return None
        file = self._file
        try:
            return None if file is None else file.revision(u64(oid), before)
        except (Unexpected, OSError) as error:
            self._give_up(error)
            return None

    @property
    def is_useless(self) -> bool:
        """Whether nothing is to be had here any more."""
        return self._file is None

    def records(self, before: bytes) -> EarlierRecords | None:
        """The objects as they were before a transaction; None: they are not known here."""
        covered = self.covers(before)
        file = self._file
        return EarlierRecords(file, before) if covered and file is not None else None

    def covers(self, before: bytes) -> bool:
        """Whether all transactions before one are known here.

        :param before: the id after that of a transaction of which the server has told.
        """
        last = p64(u64(before) - 1)
        file = self._file
        return file is not None and (file.last >= last or self._follow(last))

    def _follow(self, last: bytes) -> bool:
        with self._lock:
            file = self._file
            if file is None:
                return False
            try:
                if file.last < last:
                    file.follow()
                if file.last < last and not file.is_at(self._path):
                    file = self._file = RecordFile(self._path)  # it was packed
            except FileNotFoundError:
                return False  # it is just being replaced
            except (Unexpected, OSError) as error:
                self._give_up(error)
                return False
            return file.last >= last

    def _give_up(self, error: Exception) -> None:
        logger.debug("%s is read through its server from now on: %s", self._path, error)
        self._file = None
