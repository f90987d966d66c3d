"""Reading a study as it was last committed, from its file: no server is needed, and none is kept busy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from motoko_core.errors import StudyError
from motoko_core.study.layout import trees_of
from motoko_core.study.plain_objects import Reference, Unexpected
from motoko_core.study.plain_snapshot import PlainSnapshot, plain_snapshot
from motoko_core.study.record import Record, Snapshot
from motoko_core.study.record_file import RecordFile
from motoko_core.study.server import study_server
from motoko_core.study.values import is_value

if TYPE_CHECKING:
    from motoko_core.study_config import StudyConfig

logger = logging.getLogger("motoko")


@contextmanager
def snapshot(name: str, config: StudyConfig, host: str | None) -> Iterator[Snapshot]:
    """A study at this moment; one on another machine is asked of its server.

    :param name: the task manager's name.
    :param host: ``host:`` of motoko.yaml, or None.
    :raises ~motoko_core.errors.StudyError: its database is damaged or unreachable.
    """
    server = study_server(name, config.directory, host)
    with ExitStack() as stack:

        def plain(before: bytes | None = None) -> PlainSnapshot:
            return stack.enter_context(plain_snapshot(name, config, host, before=before))

        if not server.is_local:
            found: Snapshot = plain()
        else:
            try:
                file = RecordFile(server.data)
                stack.callback(file.close)
                found = FileSnapshot(file, config.name, plain)
            except Unexpected as error:
                logger.debug("%s is read with ZODB: %s", server.data, error)
                found = plain()
            except OSError as error:
                raise StudyError(f"cannot read {server.data}: {error.strerror or error}") from error
        yield found


class FileSnapshot:
    """A study's file, read by :class:`~motoko_core.study.record_file.RecordFile`.

    :param study: ``study:`` of bd.yaml.
    :param plain: reads the same moment with ZODB, for what is not as usual; takes the first transaction id
        that it must not see.
    :raises Unexpected: there is no such study in it, or nothing is where it should be.
    """

    def __init__(self, file: RecordFile, study: str, plain: Callable[[bytes], PlainSnapshot]) -> None:
        self._file = file
        self._open_plain = plain
        self._runs, self._jobs = trees_of(file, study)

    def runs(self) -> Iterator[Record]:
        last = None
        try:
            for run_id, reference in self._file.items(self._runs):
                yield self._record(run_id, reference, self._run_quantities)
                last = run_id
        except Unexpected as error:
            logger.debug("from the run after %s on, ZODB reads: %s", last, error)
            yield from self._plain.runs(after=last)

    def job(self, job_id: Any) -> Record | None:
        try:
            reference = self._places_of_jobs.get(job_id)
            return None if reference is None else self._record(job_id, reference, lambda *_: {})
        except Unexpected as error:
            logger.debug("ZODB reads the job %s: %s", job_id, error)
            return self._plain.job(job_id)

    def _record(
        self, record_id: Any, reference: Reference, quantities: Callable[[Any, Any], Mapping[str, Any]]
    ) -> Record:
        state, links = self._file.state(reference)
        try:
            entries = state["entries"]
            if type(entries) is Reference:
                entries = dict(self._file.items(entries))
            attributes = {name.lower(): value for name, value in state.items() if is_value(name)}
            own = sum(type(value) is Reference for name, value in state.items() if not is_value(name))
        except (TypeError, KeyError, AttributeError) as error:
            raise Unexpected(f"the record {record_id}: {error!r}") from error
        if links != own or any(type(value) is Reference for value in entries.values()):
            raise Unexpected(f"a value of {record_id} is an object of its own")
        stored = state.get("quantities")
        return Record(record_id, entries, attributes, lambda: quantities(record_id, stored))

    def _run_quantities(self, run_id: Any, stored: Any) -> Mapping[str, Any]:
        try:
            return dict(self._file.items(stored))
        except Unexpected:
            run = self._plain.run(run_id)
            return {} if run is None else run.quantities

    @cached_property
    def _places_of_jobs(self) -> dict[Any, Reference]:
        return dict(self._file.items(self._jobs))

    @cached_property
    def _plain(self) -> PlainSnapshot:
        return self._open_plain((int.from_bytes(self._file.last, "big") + 1).to_bytes(8, "big"))
