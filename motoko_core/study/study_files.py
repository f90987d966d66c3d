"""launch.sh, doIt.py and the other configuration files of a study, which every run of it keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from motoko_core.config import StudyConfig, require_study_files
from motoko_core.study import blackdynamite as bd

#: Two changes of a file within so many seconds may leave the same times in it, where these are coarse.
_COARSE_S = 2.0


class StudyFiles:
    """Files as they were at one moment, and as BlackDynamite stores them with a run."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [
            bd.new_file(path.name, path.read_text(encoding="utf-8", errors="surrogateescape"))
            for path in paths
        ]

    @property
    def exec_id(self) -> str:
        """The id of launch.sh."""
        return str(self._files[0].id)

    def store(self, base: bd.StudyBase) -> list[str]:
        """Write those that the study does not have yet; answer all their ids."""
        stored = base.configfiles
        for file in self._files:
            if file.id not in stored:
                # A new object: it belongs to the transaction, and these outlive it.
                stored[file.id] = bd.new_file(file.filename, file.file)
        return [str(file.id) for file in self._files]


class FilesOnDisk:
    """The files of a study, which are read again when they have changed.

    :param clock: seconds since the epoch.
    """

    def __init__(self, config: StudyConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._paths = [config.directory / name for name in ("launch.sh", "doIt.py", *config.config_files)]
        self._names = [str(path) for path in self._paths]
        self._known: tuple[object, StudyFiles] | None = None

    def read(self) -> StudyFiles:
        """The files as they are now.

        :raises ~motoko_core.errors.ConfigError: one of them is missing.
        """
        settled = round((self._clock() - _COARSE_S) * 1e9)
        try:
            looks = [_look(name) for name in self._names]
        except OSError:
            looks = []
        if self._known is not None and self._known[0] == looks:
            return self._known[1]
        require_study_files(self._config)
        files = StudyFiles(self._paths)
        is_settled = bool(looks) and all(max(times) < settled for _, _, *times in looks)
        self._known = (looks, files) if is_settled else None
        return files


def _look(path: str) -> tuple[int, ...]:
    """What differs when a file has changed: which it is, its size, and its times in nanoseconds."""
    # NFS asks its server about a file that is opened; of others, it may answer what it knew a minute ago.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
