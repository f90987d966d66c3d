"""The entries of one run as they change: from its server if that is up, else from the database's file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from motoko_core.errors import TaskError
from motoko_core.states import CREATED, is_active, is_failure

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager


class RunWatch:
    """One run of a study. No server is started for it.

    :raises TaskError: (when it is looked at) there is no such run.
    """

    def __init__(self, manager: TaskManager, run_id: int) -> None:
        self.reference = f"{manager.study}.{run_id}"
        self._manager = manager
        self._run_id = run_id
        self._entries: Mapping[str, Any] = {}
        self._as_of: object = None

    @property
    def waits(self) -> bool:
        """Whether it waits for a launcher."""
        return self._entries.get("state") in (CREATED, None)

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end, and what is to be told of that has been written."""
        return not is_active(self._entries.get("state")) and not self._manager.is_settling(self._entries)

    @property
    def has_launcher(self) -> bool:
        from motoko_core.locks import holder

        return holder(self._manager.launcher_lock) is not None

    def look(self) -> Mapping[str, Any]:
        """Its entries at this moment."""
        row = self._row()
        if row is None:
            self._read()
        else:
            if row != self._as_of:
                self._entries = row
                if is_failure(row.get("state")) and not self._manager.is_settling(row):
                    self._read()  # why it failed is no value that the index has
            self._as_of = row
        return self._entries

    def _row(self) -> Mapping[str, Any] | None:
        """What the server tells; None if it is not up."""
        from ZEO.Exceptions import ClientDisconnected

        from motoko_core.errors import StudyError

        database = self._manager.database
        with suppress(ClientDisconnected, StudyError):
            if self._is_reachable():
                database.index.refresh()
                row = database.index.rows.get(self._run_id)
                if row is None:
                    raise self._unknown()
                return dict(row)
        return None

    def _is_reachable(self) -> bool:
        database = self._manager.database
        if database.is_connected:  # a server logs those who only knock
            return bool(database.db.storage.is_connected())
        return database.server.is_up()

    def _read(self) -> None:
        """Read the database's file, unless it has not changed."""
        from motoko_core.study.snapshot import snapshot

        database = self._manager.database
        as_of: object = None
        with suppress(OSError):
            info = database.server.data.stat()
            as_of = info.st_size, info.st_mtime_ns
        if as_of is not None and as_of == self._as_of:
            return
        settings = self._manager.workflow.configuration.task_managers[self._manager.study]
        with snapshot(self._manager.study, database.config, settings.host) as content:
            found = next((run for run in content.runs() if run.id == self._run_id), None)
        if found is None:
            raise self._unknown()
        self._entries, self._as_of = found.entries, as_of

    def _unknown(self) -> TaskError:
        return TaskError(
            f"the study {self._manager.study!r} has no run {self._run_id}",
            hint="`motoko info --verbose` lists the runs.",
        )
