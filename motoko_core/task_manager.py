"""Task managers: a workflow's handle on one BlackDynamite study."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motoko_core.config import load_study_config
from motoko_core.entries import tag_of
from motoko_core.errors import MotokoError, TaskError
from motoko_core.locks import holder
from motoko_core.progress import shown
from motoko_core.selection import Constraints, RunList, TaskSelection, TaskSelectionEval, hand_out
from motoko_core.session import current_session
from motoko_core.study import records
from motoko_core.study.blackdynamite import StudyBase
from motoko_core.study.constraints import Constraint, parse
from motoko_core.study.database import StudyDatabase
from motoko_core.study.long_list import LongList
from motoko_core.study.points import Points, run_entries
from motoko_core.study.study_files import FilesOnDisk

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

__all__ = ["RunList", "TaskManager", "TaskSelection", "TaskSelectionEval"]

_PARSED_CONSTRAINTS = 500
#: Code in a function that has no name of its own.
_NAMELESS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>"})


def caller_place(frame: Any) -> str:
    """Where a call came from, for messages: ``file:line``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class TaskManager:
    """One study of a workflow: creates tasks in it and selects them.

    :param workflow: the workflow it belongs to.
    :param study: its name in motoko.yaml, which is also the name of the study's directory.
    """

    def __init__(self, workflow: Workflow, study: str) -> None:
        self.workflow = workflow
        self.study = study
        settings = workflow.configuration.task_managers[study]
        self.config = dict((workflow.config["task_managers"] or {}).get(study) or {})
        self.study_config = load_study_config(workflow.configuration.directory / study)
        self.database = StudyDatabase(study, self.study_config, settings.host)
        self._constraints: dict[Any, Constraint] = {}
        self._files = FilesOnDisk(self.study_config)

    @property
    def host(self) -> str:
        """``zeo://<directory>`` or ``zeo://<host>:<port>``."""
        return self.database.host

    @property
    def study_dir(self) -> str:
        """The study's directory, absolute."""
        return str(self.study_config.directory)

    @property
    def bd_dir(self) -> str:
        """BlackDynamite's directory in it, ``.bd``."""
        return str(self.study_config.directory / ".bd")

    @property
    def bd_config(self) -> dict[str, Any]:
        """The content of ``bd.yaml``."""
        return copy.deepcopy(dict(self.study_config.raw))

    @property
    def base(self) -> StudyBase:
        """BlackDynamite's base for the study, in the current session: ``.runs``, ``.jobs``, by id."""
        current_session().connection(self.database).has_searched = True
        return self.database.base

    def connect(self) -> StudyBase:
        """The same as :attr:`base`."""
        return self.base

    @property
    def launcher_lock(self) -> Path:
        """Held by the launcher that serves this study."""
        return self.database.server.directory / "launcher.lock"

    def has_launcher(self) -> bool:
        """Whether a launcher is at work on this study."""
        return holder(self.launcher_lock) is not None

    def is_settling(self, row: Mapping[str, Any]) -> bool:
        """Whether a launcher is about to write how a run came to the end that its script has told.

        :param row: the run's values in the index.
        """
        return bool(tag_of(row)) and self.has_launcher()

    def constraint(self, constraints: Constraints) -> Constraint:
        """Read constraints against this study's entries.

        :raises ~motoko_core.errors.ConstraintError: they do not parse, or name an unknown entry.
        """
        key = constraints if constraints is None or isinstance(constraints, str) else tuple(constraints)
        found = self._constraints.get(key)
        if found is None:
            if len(self._constraints) >= _PARSED_CONSTRAINTS:
                self._constraints.clear()
            found = self._constraints[key] = parse(key, self.database.names)
        return found

    def select(self, constraints: Constraints = None) -> TaskSelection:
        """The tasks that meet the constraints; only those of ``workflow.run_name`` when it is set.

        :param constraints: None, a constraint string, or several of which all must hold.
        :raises ~motoko_core.errors.ConstraintError: they do not parse, or name an unknown entry.
        """
        return TaskSelection(constraints, self)

    def run(self, run_id: int) -> Any:
        """The run with this id, in the current session.

        :raises TaskError: there is none.
        """
        base = self.database.base
        run = base._get_runs().entries.get(run_id)
        if run is None:
            raise TaskError(
                f"the study {self.study!r} has no run {run_id}",
                hint="`motoko info --verbose` lists the runs.",
            )
        return hand_out(self, (run, base._get_jobs().entries.get(run.entries["job_id"])))[0]

    def createTask(
        self, run_params: Mapping[str, Any] | None = None, commit: bool = False, **job_params: Any
    ) -> RunList:
        """Create tasks, or find those that exist: the same parameters give the same task.

        The task becomes visible, and is launched, when the session commits: at an ``await``, at the end of
        the callback, or at once with ``commit=True``.

        :param run_params: run parameters, merged over ``run_params`` of bd.yaml (mappings one level deep).
        :param job_params: job parameters, merged likewise over ``job_space``. A list spans the space
            (cartesian product), unless the parameter's own type is ``list``.
        :raises TaskError: ``workflow.run_name`` is not set or has a zero byte in it, a job parameter is
            unknown, or a value is of the wrong type. Nothing is created then.
        """
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        function = caller
        while function is not None and function.f_code.co_name in _NAMELESS and function.f_back:
            function = function.f_back
        try:
            name = function.f_code.co_name if function else ""

            def create() -> RunList:
                return self._create(run_params, job_params, name)

            return current_session().commit_after(create) if commit else create()
        except MotokoError as error:
            if error.where is None and caller is not None:
                error.where = caller_place(caller)
            raise
        finally:
            del frame, caller, function

    def _create(
        self, run_params: Mapping[str, Any] | None, job_params: Mapping[str, Any], caller: str
    ) -> RunList:
        name = self.workflow.run_name
        if not name:
            raise TaskError(
                f"cannot create a task in {self.study!r}: run_name is not set",
                hint="Set workflow.run_name first; on the command line, --run-name sets it.",
            )
        if "\0" in str(name):
            raise TaskError(
                f"cannot create a task in {self.study!r}: run_name is {name!r}, with a zero byte in it",
                hint="The names of the files that a run writes begin with it: leave the zero byte out.",
            )
        if run_params is not None and not isinstance(run_params, Mapping):
            raise TaskError(
                f"run_params of {self.study!r} is {run_params!r}, not a mapping of names to values"
            )
        config = self.study_config
        points = Points(_merge(config.job_space, job_params), config.job, study=self.study)
        entries = {
            "machine_name": "localhost",
            "nproc": 1,
            **run_entries(_merge(config.run_params, run_params or {}), config.run, study=self.study),
            "workflow": str(self.workflow.configuration.path),
            "run_name": name,
            "event_name": caller,
        }
        files = self._files.read()
        with self.database.creating() as base:
            portions = records.create(base, points, entries, files)
            if len(points) < records.PORTION:
                return RunList([hand_out(self, pair) for portion in portions for pair in portion], self)
            found = LongList(self.database)
            with shown(len(points), f"creating tasks in {self.study}") as advance:
                for portion in portions:
                    for run, job in portion:
                        found.append(run, job)
                    advance(len(portion))
            return RunList(found, self)


def _merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {name.lower(): value for name, value in defaults.items()}
    for name, value in given.items():
        default = merged.get(name.lower())
        if isinstance(default, dict) and isinstance(value, Mapping):
            value = {**default, **value}
        merged[name.lower()] = value
    return merged
