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
    """Follows the file of a database. All methods may be called from any thread, and none takes long.

    It answers only what it is sure of: what it does not, its server has to be asked for. That a file is the
    server's is known by the transaction that the server has told of last: no copy has that, unless the copy
    is the same up to there.

    :param file: what was taken in of it already.
    """

    def __init__(self, path: Path, file: RecordFile) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: RecordFile | None = file
        #: Reads what has taken the file's place.
        self._opening: threading.Thread | None = None

    def load_before(self, oid: bytes, before: bytes) -> Revision | None:
        """An object as it was before a transaction; None: ask the server."""
        file = self._covering(before)
        try:
            return None if file is None else file.revision(u64(oid), before)
        except (Unexpected, OSError) as error:
            with self._lock:
                self._give_up(error)
            return None

    @property
    def is_at_its_place(self) -> bool:
        """Whether the file that is read is still the one at the path."""
        file = self._file
        return file is not None and file.is_at(self._path)

    @property
    def is_useless(self) -> bool:
        """Whether nothing is to be had here any more."""
        return self._file is None

    def records(self, before: bytes) -> EarlierRecords | None:
        """The objects as they were before a transaction; None: they are not known here."""
        file = self._covering(before)
        return None if file is None else EarlierRecords(file, before)

    def covers(self, before: bytes) -> bool:
        """Whether a transaction is known here that the server has told of, and so are all before it.

        :param before: the id after the transaction's.
        """
        return self._covering(before) is not None

    def _covering(self, before: bytes) -> RecordFile | None:
        # What is to be read is read from what this gives: another file may take its place at any time.
        last = p64(u64(before) - 1)
        file = self._file
        if file is None or file.has(last):
            return file
        return self._follow(last) if file.last < last else None

    def latest(self) -> EarlierRecords:
        """The objects as they are at the end of the file, whether the server has told of that or not.

        :raises Unexpected: the file is not as usual, or another one has taken its place.
        :raises OSError: it cannot be read.
        """
        with self._lock:
            file = self._file
            if file is None or not file.is_at(self._path):
                raise Unexpected("the file is not there any more")
            try:
                file.follow()
            except (Unexpected, OSError) as error:
                self._give_up(error)
                raise
            return EarlierRecords(file, p64(u64(file.last) + 1))

    def _follow(self, last: bytes) -> RecordFile | None:
        with self._lock:
            file = self._file
            if file is None:
                return None
            try:
                if file.last < last:
                    file.follow()
            except (Unexpected, OSError) as error:
                self._give_up(error)
                return None
            if file.last < last and self._opening is None and not file.is_at(self._path):
                # It was packed, and the new one takes seconds if it is large: nobody waits for it.
                self._opening = threading.Thread(target=self._open_again, args=(file,), daemon=True)
                self._opening.start()
            return file if file.has(last) else None

    def _open_again(self, earlier: RecordFile) -> None:
        try:
            file = RecordFile(self._path)
            with self._lock:
                if self._file is earlier:
                    self._file = file
        except FileNotFoundError:
            pass  # it is just being replaced
        except (Unexpected, OSError) as error:
            with self._lock:
                self._give_up(error)
        finally:
            self._opening = None

    def _give_up(self, error: Exception) -> None:
        """Read nothing here any more; under the lock."""
        logger.debug("%s is read through its server from now on: %s", self._path, error)
        self._file = None
