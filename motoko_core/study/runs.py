"""Runs that are read and changed together, whichever way they are read and stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from motoko_core.session import current_session
from motoko_core.study.blackdynamite import new_file
from motoko_core.study.values import attributes_of, prefetch, values_of

if TYPE_CHECKING:
    from motoko_core.study.database import StudyDatabase


class Run(Protocol):
    """A run of a study."""

    @property
    def entries(self) -> MutableMapping[str, Any]:
        """Its entries; what is changed in them is stored."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What scripts have set on it, by names in lower case."""

    @property
    def configfiles(self) -> Iterable[str]:
        """The ids of its configuration files."""


class Runs(Protocol):
    """The runs of one study in one transaction, with what belongs to them."""

    def get(self, run_ids: Iterable[int]) -> Iterator[tuple[int, Run]]:
        """Those of some runs that there are, with their ids."""

    def job(self, job_id: Any) -> Mapping[str, Any] | None:
        """The values of a job; None: there is none."""

    def has_job(self, job_id: Any) -> bool:
        """Whether there is a job."""

    def file(self, file_id: Any) -> ConfigFile | None:
        """A configuration file of the study; None: there is none."""

    def add_file(self, name: str, content: str) -> str:
        """Have a file in the study; answer its id."""


@attrs.frozen
class ConfigFile:
    """A configuration file."""

    name: str
    content: str


def file_id(name: str, content: str) -> str:
    """The id of a configuration file."""
    return str(new_file(name, content).id)


class SessionRuns:
    """The runs of a study in the current session."""

    def __init__(self, study: StudyDatabase) -> None:
        self._connection = current_session().connection(study)
        self._base = study.base

    def get(self, run_ids: Iterable[int]) -> Iterator[tuple[int, Run]]:
        entries = self._base._get_runs().entries
        found = [(run_id, run) for run_id in run_ids if (run := entries.get(run_id)) is not None]
        # One by one, each takes a round trip to the server.
        prefetch(self._connection, [run for _, run in found], "entries", "configfiles")
        for run_id, run in found:
            yield run_id, _SessionRun(run)

    def job(self, job_id: Any) -> Mapping[str, Any] | None:
        job = self._base._get_jobs().entries.get(job_id)
        return None if job is None else dict(values_of(job))

    def has_job(self, job_id: Any) -> bool:
        return job_id in self._base._get_jobs().entries

    def file(self, file_id: Any) -> ConfigFile | None:
        found = self._base.configfiles.get(file_id)
        return None if found is None else ConfigFile(found.filename, found.file)

    def add_file(self, name: str, content: str) -> str:
        # A file of its own for each study: an object belongs to one database.
        file, files = new_file(name, content), self._base.configfiles
        if file.id not in files:
            files[file.id] = file
        return str(file.id)


class _SessionRun:
    def __init__(self, run: Any) -> None:
        self._run = run
        self.entries = run.entries

    @property
    def attributes(self) -> Mapping[str, Any]:
        return dict(attributes_of(self._run))

    @property
    def configfiles(self) -> Iterable[str]:
        return self._run.configfiles  # type: ignore[no-any-return]
