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
        if not self.covers(before):
            return None
        file = self._file
        try:
            return None if file is None else file.revision(u64(oid), before)
        except (Unexpected, OSError) as error:
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
        covered = self.covers(before)
        file = self._file
        return EarlierRecords(file, before) if covered and file is not None else None

    def covers(self, before: bytes) -> bool:
        """Whether a transaction is known here that the server has told of, and so are all before it.

        :param before: the id after the transaction's.
        """
        last = p64(u64(before) - 1)
        file = self._file
        return file is not None and (file.has(last) or (file.last < last and self._follow(last)))

    def latest(self) -> EarlierRecords:
        """The objects as they are at the end of the file, whether the server has told of that or not.

        :raises Unexpected: the file is not as usual, or another one has taken its place.
        :raises OSError: it cannot be read.
        """
        with self._lock:
            file = self._file
            if file is None or not file.is_at(self._path):
                raise Unexpected("the file is not there any more")
            file.follow()
            return EarlierRecords(file, p64(u64(file.last) + 1))

    def _follow(self, last: bytes) -> bool:
        with self._lock:
            file = self._file
            if file is None:
                return False
            try:
                if file.last < last:
                    file.follow()
            except (Unexpected, OSError) as error:
                self._give_up(error)
                return False
            if file.last < last and self._opening is None and not file.is_at(self._path):
                # It was packed, and the new one takes seconds if it is large: nobody waits for it.
                self._opening = threading.Thread(target=self._open_again, daemon=True)
                self._opening.start()
            return file.has(last)

    def _open_again(self) -> None:
        try:
            self._file = RecordFile(self._path)
        except FileNotFoundError:
            pass  # it is just being replaced
        except (Unexpected, OSError) as error:
            self._give_up(error)
        finally:
            self._opening = None

    def _give_up(self, error: Exception) -> None:
        logger.debug("%s is read through its server from now on: %s", self._path, error)
        self._file = None
