"""BlackDynamite's objects, made and reached without its process-wide singleton.

BlackDynamite 1.3.9 keeps the last database that was opened in ``BaseZEO.singleton_base`` and takes it
for every run's own. That is wrong as soon as two studies are open, so two of its methods are replaced,
here and nowhere else: an object that came out of a Motoko connection knows its study by that connection.
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from BlackDynamite.base_zeo import BaseZEO
from BlackDynamite.conffile_zeo import ConfFile
from BlackDynamite.constraints_zeo import ZEOconstraints
from BlackDynamite.job import JobZEO
from BlackDynamite.lowercase_btree import PersistentLowerCaseBTree
from BlackDynamite.run_zeo import RunZEO
from BlackDynamite.zeoobject import ZEOObject
from BTrees.OOBTree import OOBTree, OOSet
from persistent import Persistent

from motoko_core.study.layout import MOTOKO_SCHEMA

if TYPE_CHECKING:
    from ZODB.Connection import Connection

    from motoko_core.study.database import StudyDatabase

#: Entries that every run has, with their types (``RunZEO.__init__``).
RUN_TYPES: dict[str, type] = {
    "id": int,
    "machine_name": str,
    "run_path": str,
    "job_id": int,
    "nproc": int,
    "run_name": str,
    "start_time": datetime.datetime,
    "state": str,
    "exec": str,
    "last_step": int,
    "last_step_time": datetime.datetime,
}
#: Entries that Motoko adds to every run.
MOTOKO_TYPES: dict[str, type] = {"workflow": str, "event_name": str}
JOB_TYPES: dict[str, type] = {"id": int}

_OPTIONAL = ["run_path", "start_time", "state", "last_step", "last_step_time"]
_FOREIGN_BASE = ZEOObject.base.fget


def _base(self: Any) -> Any:
    base = getattr(self._p_jar, "motoko_base", None)
    return base if base is not None else _FOREIGN_BASE(self)


_foreign_update = ZEOObject.update


def _update(self: Any, **entries: Any) -> Any:
    if getattr(self._p_jar, "motoko_base", None) is None:
        return _foreign_update(self, **entries)
    # The object is the stored one: there is no copy to bring up to date.
    self.entries.update(entries)
    return None


ZEOObject.base = property(_base)
ZEOObject.update = _update


class StudyBase(BaseZEO):  # type: ignore[misc]
    """BlackDynamite's view of a study, on one session's connection."""

    def __init__(self, study: StudyDatabase, connection: Connection, schema: str) -> None:
        # BaseZEO.__init__ is left out on purpose: it would open a connection of its own.
        self.study = study
        self.user = getpass.getuser()
        self.read_only = False
        self.connection = connection
        self.db = connection.db()
        self.root = connection.root
        self.host = study.host
        self.root_dir = str(study.directory)
        self.schema = schema
        self.config = dict(study.config.raw)
        self.ConfFile = ConfFile
        self.BDconstraints = ZEOconstraints
        self.setHostsConfig()
        self.setConfPaths()

    # BlackDynamite makes a base the singleton when it is constructed; here, when somebody is about to
    # construct a run or a job with it. One that BlackDynamite itself has opened in this process (inside a
    # task) stays: that task's own objects depend on it.
    def _become_singleton(self) -> None:
        if BaseZEO.singleton_base is None or isinstance(BaseZEO.singleton_base, StudyBase):
            BaseZEO.singleton_base = self

    @property
    def Job(self) -> type[JobZEO]:
        self._become_singleton()
        return JobZEO  # type: ignore[no-any-return]

    @property
    def Run(self) -> type[RunZEO]:
        self._become_singleton()
        return RunZEO  # type: ignore[no-any-return]

    def getJobFromID(self, job_id: int) -> JobZEO:
        # BlackDynamite 1.3.9 passes itself to a constructor that takes nothing.
        return self.jobs[job_id]

    @property
    def data(self) -> Any:
        """The study's own tree: jobs, runs, indexes, counters, configuration files."""
        return self.root.schemas[self.schema]


def _fill(obj: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        Persistent.__setattr__(obj, name, value)
    return obj


def new_job(entries: Mapping[str, Any], types: Any) -> JobZEO:
    """Make a job; ``types`` is shared with the study's descriptor instead of copied."""
    return _fill(
        JobZEO.__new__(JobZEO),
        entries=OOBTree(entries),
        key_string="key_",
        optional=[],
        types=types,
        operators={},
    )


def new_run(entries: Mapping[str, Any], types: Any, files: list[str]) -> RunZEO:
    """Make a run with the ids of its configuration files; ``types`` is shared as in :func:`new_job`."""
    return _fill(
        RunZEO.__new__(RunZEO),
        entries=OOBTree(entries),
        key_string="key_",
        optional=list(_OPTIONAL),
        types=types,
        operators={},
        configfiles=OOSet(files),
        quantities=OOBTree(),
    )


def new_file(name: str, content: str) -> ConfFile:
    """Make a configuration file. (The constructor reads the disk if the content is empty.)"""
    file = ConfFile.__new__(ConfFile)
    file.filename, file.file = name, content
    file.id = hashlib.md5(content.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return file


def new_tree(key_string: str = "key_") -> Any:
    return PersistentLowerCaseBTree(key_string=key_string)


def schema_name(study: str) -> str:
    """The key of a new study's tree. A name with ``_`` is taken for a whole schema name by BlackDynamite."""
    name = study if "_" in study else f"{getpass.getuser()}_{study}"
    return name.lower()


def create_schema(root: Any, study: str, job_types: Mapping[str, type], run_types: Mapping[str, type]) -> str:
    """Write the tree of an empty study, as ``canYouDigIt init`` does."""
    if not hasattr(root, "schemas"):
        root.schemas = new_tree("study_")
    name = schema_name(study)
    tree = root.schemas[name] = new_tree()
    job_tree, run_tree = new_tree(), new_tree()
    job_tree.entries.update({**JOB_TYPES, **job_types})
    run_tree.entries.update({**RUN_TYPES, **run_types})
    empty_run = {"id": None, "last_step": None, "last_step_time": None, "start_time": None}
    for key, value in {
        "Quantities": OOSet(),
        "Jobs": new_tree("job_"),
        "JobsIndex": OOBTree(),
        "RunsIndex": OOBTree(),
        "Runs": new_tree("run_"),
        "ConfigFiles": OOBTree(),
        "Jobs_counter": 1,
        "Runs_counter": 1,
        "job_desc": new_job({"id": None}, job_tree),
        "run_desc": new_run(empty_run, run_tree, []),
        "motoko_schema": MOTOKO_SCHEMA,
    }.items():
        tree[key] = value
    return name
