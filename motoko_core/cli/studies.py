"""The studies of a workflow for commands that only read: opening the workflow takes longer than that."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from motoko_core.cli.context import refuse_missing
from motoko_core.config import StudyConfig, load_study_config, load_workflow_config, task_manager_name
from motoko_core.study.record import Snapshot
from motoko_core.study.server import study_server
from motoko_core.study.snapshot import snapshot


@attrs.frozen
class Study:
    """A study that can be read.

    :param name: the task manager's name.
    :param host: ``host:`` of motoko.yaml, or None.
    """

    name: str
    config: StudyConfig
    host: str | None

    @property
    def exists(self) -> bool:
        """Whether it was created; one on another machine is assumed to be."""
        server = study_server(self.name, self.config.directory, self.host)
        return server.data.exists() or not server.is_local

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The study at this moment."""
        return snapshot(self.name, self.config, self.host)


def created_studies(path: Path, wanted: str) -> list[Study]:
    """The studies of a motoko.yaml.

    :param wanted: the name or alias of one, or ``all``.
    :raises ~motoko_core.errors.ConfigError: a file is wrong, or there is no such study.
    :raises ~motoko_core.errors.MotokoError: one was not created yet.
    """
    config = load_workflow_config(path)
    names = list(config.task_managers)
    if wanted != "all":
        names = [task_manager_name(wanted, names, config.aliases, where="--bd-study")]
    studies = [
        Study(name, load_study_config(config.directory / name), config.task_managers[name].host)
        for name in names
    ]
    refuse_missing([study.name for study in studies if not study.exists])
    return studies
