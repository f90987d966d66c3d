"""The storage inside a database server: ZODB's, made to outlive a disk that is full.

ZODB's FileStorage takes back what a failed transaction has written. But Python's files keep what they could
not write, and try again at every later ``seek``, ``truncate`` or ``close``: so the taking back fails as well,
and the storage holds a lock for ever, or finishes the next transaction in front of a torn one. Here, a file
whose buffer could not be written is opened anew.

``component.xml`` beside this file makes it known to ``zeo.conf`` as ``<motokostorage>``.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import ZODB.config
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import TempFormatter

logger = logging.getLogger("motoko.server")

#: zdaemon starts a program again that ended with it (``EX_IOERR``).
UNCERTAIN = 74


class StudyStorage(FileStorage):  # type: ignore[misc]
    """A FileStorage that takes a transaction back that did not fit onto the disk, and works on."""

    _file: Any
    _tfile: Any

    def tpc_vote(self, transaction: Any) -> Any:
        try:
            return super().tpc_vote(transaction)
        except OSError:
            with self._lock:
                with contextlib.suppress(OSError):
                    self._file.close()
                self._file = open(self._file_name, "r+b")  # noqa: SIM115, PTH123 - stays open
                self._file.truncate(self._pos)
            self._files.flush()
            raise

    def _clear_temp(self) -> None:
        try:
            super()._clear_temp()
        except OSError:
            with contextlib.suppress(OSError):
                self._tfile.close()
            self._tfile = open(self._file_name + ".tmp", "w+b")  # noqa: SIM115, PTH123 - stays open
            self._tfmt = TempFormatter(self._tfile)

    def _finish(self, *arguments: Any) -> None:
        try:
            super()._finish(*arguments)
        except Exception:
            # Whether the transaction is on the disk is not known, and ZODB has closed the file. Clients find
            # out when they are connected to a server that has read it again.
            logger.critical("cannot finish a transaction; the server ends", exc_info=True)
            os._exit(UNCERTAIN)

    def _save_index(self) -> None:
        try:
            super()._save_index()
        except OSError as error:  # it only makes the next start faster
            logger.warning("cannot save the index of %s: %s", self._file_name, error)
            Path(self._file_name + ".index.index_tmp").unlink(missing_ok=True)


class Configuration(ZODB.config.BaseConfig):  # type: ignore[misc]
    """The section ``<motokostorage>``."""

    def open(self) -> StudyStorage:
        return StudyStorage(self.config.path, blob_dir=self.config.blob_dir)
