"""bd.yaml, read, checked and frozen. (:mod:`motoko_core.config` re-exports what stands here.)"""

from __future__ import annotations

import copy
import datetime
import difflib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from motoko_core.entries import OF_AN_EXECUTION
from motoko_core.errors import ConfigError, nearest
from motoko_core.yaml_source import YamlSource

#: Parameter types of bd.yaml. A list and not ``eval``, which is what BlackDynamite does: a file that
#: describes parameters must not be able to run code.
PARAMETER_TYPES: Mapping[str, type] = MappingProxyType(
    {
        "float": float,
        "int": int,
        "str": str,
        "bool": bool,
        "list": list,
        "dict": dict,
        "complex": complex,
        "datetime": datetime.datetime,
        "datetime.datetime": datetime.datetime,
    }
)

_STUDY_SKELETON = "Write at least:\n    study: <name>\n    job:\n      <parameter>: float\n    run:"


def read_only(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


def copied(value: Any) -> Any:
    return copy.deepcopy(value)


@attrs.frozen(kw_only=True)
class StudyConfig:
    """bd.yaml.

    ``job_space``, ``run_params`` and ``raw`` come as fresh copies with every access.

    :param path: absolute path of bd.yaml; ``directory`` is its parent.
    :param name: the value of ``study:``.
    :param job: job parameter, in lower case -> its type.
    :param run: run parameter, in lower case -> its type.
    :param config_files: files that go into every run directory beside doIt.py, relative to ``directory``.
    """

    path: Path
    directory: Path
    name: str
    job: Mapping[str, type] = attrs.field(converter=read_only, factory=dict)
    run: Mapping[str, type] = attrs.field(converter=read_only, factory=dict)
    config_files: tuple[str, ...] = ()
    _job_space: Mapping[str, Any] = attrs.field(converter=copied, factory=dict)
    _run_params: Mapping[str, Any] = attrs.field(converter=copied, factory=dict)
    _raw: dict[str, Any] = attrs.field(converter=copied, factory=dict, repr=False)

    @property
    def job_space(self) -> Mapping[str, Any]:
        """Default job parameters of every task; empty if bd.yaml names a script instead (see ``raw``)."""
        return copy.deepcopy(self._job_space)

    @property
    def run_params(self) -> Mapping[str, Any]:
        """Default run parameters of every task."""
        return copy.deepcopy(self._run_params)

    @property
    def raw(self) -> dict[str, Any]:
        """The file as plain data, with BlackDynamite's own keys."""
        return copy.deepcopy(self._raw)


_KEYS = ("study", "job", "run", "job_space", "run_params", "config_files")
#: Keys of BlackDynamite's own that are spelt like these.
_BLACKDYNAMITE_KEYS = ("run_space", "run_name", "exec_file")

logger = logging.getLogger("motoko")


def load_study_config(directory: str | os.PathLike[str]) -> StudyConfig:
    """Read and check the bd.yaml of a study.

    :raises ConfigError: the directory or the file is missing, or something in the file cannot work.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ConfigError(
            "the directory of the study does not exist.",
            where=str(folder.absolute()),
            hint="Make it, with bd.yaml, launch.sh and doIt.py, or correct the name in motoko.yaml.",
        )
    source = YamlSource.load(folder / "bd.yaml", missing=_STUDY_SKELETON, empty=_STUDY_SKELETON)
    source.mapping(example=_STUDY_SKELETON)
    source.require("study", _STUDY_SKELETON)
    # Unknown keys are BlackDynamite's business, so a misspelt 'job' would go unnoticed; it needs one too.
    source.require("job", _STUDY_SKELETON)
    _warn_of_misspelt_keys(source)
    name = source.text("study", example="study: <name>, in quotes if it is a number.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        source.fail(("study",), f"'study' cannot be {name!r}.", "Use A-Z, a-z, 0-9, _ and - only.")
    job = _types(source, "job")
    return StudyConfig(
        path=source.path,
        directory=source.path.parent,
        name=name,
        job=job,
        run=_types(source, "run"),
        job_space=_job_space(source, job),
        run_params=_run_params(source),
        config_files=tuple(source.texts("config_files", example="config_files: [<file>]")),
        raw=source.data,
    )


def _warn_of_misspelt_keys(source: YamlSource) -> None:
    """Other keys are BlackDynamite's business; one that looks like one of ours is probably meant to be it."""
    for key in source.data:
        close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.8)
        if close and key not in (*_KEYS, *_BLACKDYNAMITE_KEYS):
            logger.warning("%s: unknown key %r; did you mean %r?", source.where(key), key, close[0])


def _types(source: YamlSource, section: str) -> dict[str, type]:
    found: dict[str, type] = {}
    for parameter in source.mapping(section, example=f"{section}: {{<parameter>: float}}"):
        keys = (section, parameter)
        given = source.text(*keys, example=f"{parameter}: float. {nearest('', PARAMETER_TYPES)}")
        if given not in PARAMETER_TYPES:
            hint = nearest(given, PARAMETER_TYPES)
            source.fail(keys, f"'{section}.{parameter}' has the unknown type {given!r}.", hint)
        if section == "run":
            _refuse_ours(source, section, parameter)
        # BlackDynamite's databases know names in lower case only.
        if parameter.lower() in found:
            source.fail(
                keys, f"'{section}' has {parameter!r} twice: case makes no difference.", "Rename one."
            )
        found[parameter.lower()] = PARAMETER_TYPES[given]
    return found


def _run_params(source: YamlSource) -> dict[str, Any]:
    params = source.mapping("run_params", example="run_params: {<parameter>: <value>}")
    for parameter in params:
        _refuse_ours(source, "run_params", parameter)
    return params


def _refuse_ours(source: YamlSource, section: str, parameter: str) -> None:
    if parameter.lower() in OF_AN_EXECUTION:
        names = ", ".join(OF_AN_EXECUTION)
        source.fail(
            (section, parameter),
            f"'{section}' has {parameter!r}, which Motoko writes itself when it executes a run.",
            f"Rename the parameter here, in orchestrator.py and in the scripts. Motoko's are: {names}.",
        )


def _job_space(source: YamlSource, job: Mapping[str, type]) -> dict[str, Any]:
    if isinstance(source.get("job_space"), str):
        # It names a script for BlackDynamite's own createJobs; Motoko has no defaults to take from it.
        return {}
    space = source.mapping("job_space", example="job_space: {<parameter>: <value>}")
    for parameter in space:
        if parameter.lower() not in job:
            problem = f"'job_space' has {parameter!r}, which is not declared under 'job'."
            source.fail(("job_space", parameter), problem, nearest(parameter, job))
    return space


def require_study_files(config: StudyConfig) -> None:
    """Check that the files which every run of a study needs are there.

    :raises ConfigError: ``launch.sh``, ``doIt.py`` or a file of ``config_files`` is missing.
    """
    for name in ("launch.sh", "doIt.py", *config.config_files):
        if not (config.directory / name).is_file():
            listed = name in config.config_files
            raise ConfigError(
                f"the study {config.name!r} needs the file {name!r}, which is not in {config.directory}.",
                where=str(config.path),
                hint="Make it, or correct 'config_files'." if listed else "Make it; every study needs one.",
            )
