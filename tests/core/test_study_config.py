"""bd.yaml: what it means, and what is said about each mistake in it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from motoko_core.config import StudyConfig, load_study_config, require_study_files
from motoko_core.errors import ConfigError
from tests.core.config_files import assert_says


def study(directory: Path, text: str) -> StudyConfig:
    (directory / "bd.yaml").write_text(text, encoding="utf-8")
    return load_study_config(directory)


def test_study_has_its_name_types_and_defaults(tmp_path: Path) -> None:
    config = study(
        tmp_path,
        "study: add-1\n"
        "job: {X: float, when: datetime, ids: list}\n"
        "run: {Flag: bool}\n"
        "job_space: {x: [1, 2]}\n"
        "run_params: {slurm_options: {time: 1}}\n"
        "config_files: [data.txt]\n"
        "exec_file: launch.sh\n",
    )
    assert config.name == "add-1"
    assert config.path == tmp_path / "bd.yaml"
    assert config.directory == tmp_path
    assert dict(config.job) == {"x": float, "when": datetime.datetime, "ids": list}
    assert dict(config.run) == {"flag": bool}
    assert config.job_space == {"x": [1, 2]}
    assert config.run_params == {"slurm_options": {"time": 1}}
    assert config.config_files == ("data.txt",)
    assert config.raw["exec_file"] == "launch.sh"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float", float),
        ("int", int),
        ("str", str),
        ("bool", bool),
        ("list", list),
        ("dict", dict),
        ("complex", complex),
        ("datetime", datetime.datetime),
        ("datetime.datetime", datetime.datetime),
    ],
)
def test_every_parameter_type_is_known(tmp_path: Path, given: str, expected: type) -> None:
    assert study(tmp_path, f"study: s\njob: {{x: {given}}}\n").job["x"] is expected


def test_job_and_run_may_be_left_blank(tmp_path: Path) -> None:
    config = study(tmp_path, "study: s\njob:\nrun:\n")
    assert (dict(config.job), dict(config.run), config.job_space, config.run_params) == ({}, {}, {}, {})


def test_script_as_job_space_is_left_to_blackdynamite(tmp_path: Path) -> None:
    config = study(tmp_path, "study: s\njob:\njob_space: jobs.py\n")
    assert config.job_space == {}
    assert config.raw["job_space"] == "jobs.py"


def test_changing_a_study_copy_changes_nothing_else(tmp_path: Path) -> None:
    config = study(tmp_path, "study: s\njob: {x: int}\njob_space: {x: [1]}\nrun_params: {y: [2]}\n")
    for values in (config.job_space["x"], config.run_params["y"], config.raw["job_space"]["x"]):
        values.append(9)
    assert config.job_space == {"x": [1]}
    assert config.run_params == {"y": [2]}
    assert config.raw["job_space"] == {"x": [1]}


STUDIES = {
    "empty": ("", 1, ["bd.yaml is empty", "study: <name>"]),
    "not YAML": ("study: s\njob: {x: float\n", 3, ["not YAML"]),
    "python tag": ("study: s\njob: !!python/name:os.system\n", 2, ["!!python/name:os.system is not allowed"]),
    "duplicate key": ("study: s\njob:\n  x: int\n  x: float\n", 4, ["'x' is there twice", "line 3"]),
    "case duplicate": ("study: s\njob:\n  x: int\n  X: float\n", 4, ["'X' twice", "case"]),
    "no study": ("job:\n", 1, ["'study' is missing"]),
    "no job": ("study: s\njobs: {x: int}\n", 1, ["'job' is missing"]),
    "study number": ("job:\nstudy: 12\n", 2, ["'study' must be text, not int 12", "quotes"]),
    "study characters": ("job:\nstudy: a b\n", 2, ["'study' cannot be 'a b'", "A-Z"]),
    "study line break": ('job:\nstudy: "a\\n"\n', 2, ["'study' cannot be 'a\\n'"]),
    "job list": ("study: s\njob: [x]\n", 2, ["'job' must be a mapping, not list ['x']"]),
    "run text": ("study: s\njob:\nrun: x\n", 3, ["'run' must be a mapping, not str 'x'"]),
    "type": ("study: s\njob:\n  x: flaot\n", 3, ["'job.x' has the unknown type 'flaot'", "mean 'float'?"]),
    "name of an execution's entry": (
        "study: s\njob:\nrun:\n  y: float\n  Motoko_Failure: str\n",
        5,
        [
            "'run' has 'Motoko_Failure', which Motoko writes itself",
            "Rename the parameter",
            "motoko_handle, motoko_failure",
        ],
    ),
    "value of an execution's entry": (
        "study: s\njob:\nrun_params: {motoko_not_before: 1}\n",
        3,
        ["'run_params' has 'motoko_not_before'"],
    ),
    "type expression": (
        "study: s\njob:\nrun:\n  x: __import__('os').getcwd()\n",
        4,
        ["'run.x' has the unknown type", "Known: bool"],
    ),
    "type blank": ("study: s\njob:\n  x:\n", 3, ["'job.x' must be text, not nothing", "x: float"]),
    "parameter no text": ("study: s\njob:\n  no: int\n", 3, ["'job' must be text, not bool False", "quotes"]),
    "job_space unknown": (
        "study: s\njob: {size: int}\njob_space:\n  Size: 1\n  siez: 2\n",
        5,
        ["'job_space' has 'siez'", "Did you mean 'size'?"],
    ),
    "job_space list": ("study: s\njob:\njob_space: [1]\n", 3, ["'job_space' must be a mapping"]),
    "run_params text": ("study: s\njob:\nrun_params: a\n", 3, ["'run_params' must be a mapping"]),
    "config_files text": ("study: s\njob:\nconfig_files: a\n", 3, ["'config_files' must be a list"]),
    "config_files number": (
        "study: s\njob:\nconfig_files:\n  - 1\n",
        4,
        ["'config_files[0]' must be text, not int 1"],
    ),
}


@pytest.mark.parametrize("case", STUDIES)
def test_mistake_in_a_study_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, line, words = STUDIES[case]
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, text)
    assert_says(caught.value, tmp_path / "bd.yaml", line, words)


def test_missing_study_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study_config(tmp_path / "add")
    assert str(caught.value).startswith(f"{tmp_path}/add: the directory of the study does not exist.")
    assert "motoko.yaml" in str(caught.value)


def test_missing_bd_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/bd.yaml: there is no such file.")
    assert "study: <name>" in str(caught.value)


def complete_study(directory: Path) -> StudyConfig:
    for name in ("launch.sh", "doIt.py", "data.txt"):
        (directory / name).touch()
    return study(directory, "study: s\njob:\nconfig_files: [data.txt]\n")


def test_complete_study_is_accepted(tmp_path: Path) -> None:
    require_study_files(complete_study(tmp_path))


@pytest.mark.parametrize("name", ["launch.sh", "doIt.py", "data.txt"])
def test_missing_study_file_is_named(tmp_path: Path, name: str) -> None:
    config = complete_study(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=f"needs the file '{name}'") as caught:
        require_study_files(config)
    assert caught.value.where == str(tmp_path / "bd.yaml")
    assert ("config_files" in str(caught.value)) == (name == "data.txt")
