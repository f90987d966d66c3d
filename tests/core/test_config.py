"""motoko.yaml and bd.yaml: what they mean, and what is said about each mistake in them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from motoko_core.config import (
    StudyConfig,
    TaskManagerConfig,
    WorkflowConfig,
    load_study_config,
    load_workflow_config,
    require_study_files,
)
from motoko_core.errors import ConfigError

SMALLEST = "task_managers:\n  add:\n  mult:\norchestrator: orchestrator.main\n"  # the next line is 5


def workflow(directory: Path, text: str, **options: Any) -> WorkflowConfig:
    path = directory / "motoko.yaml"
    path.write_text(text, encoding="utf-8")
    return load_workflow_config(path, **options)


def study(directory: Path, text: str) -> StudyConfig:
    (directory / "bd.yaml").write_text(text, encoding="utf-8")
    return load_study_config(directory)


# --------------------------------------------------------------------------- motoko.yaml that works


def test_smallest_workflow_has_the_defaults(tmp_path: Path) -> None:
    config = workflow(tmp_path, SMALLEST)
    assert config.path == tmp_path / "motoko.yaml"
    assert config.directory == tmp_path
    assert dict(config.task_managers) == {
        "add": TaskManagerConfig(name="add", host=None),
        "mult": TaskManagerConfig(name="mult", host=None),
    }
    assert config.orchestrator == "orchestrator.main"
    assert config.where("orchestrator") == f"{tmp_path}/motoko.yaml:4"
    assert config.where("generator") == f"{tmp_path}/motoko.yaml"
    assert dict(config.aliases) == {}
    assert config.generator == "bash"
    assert config.generator_options == {}
    assert config.error_handlers == ()
    assert config.poll_interval == 2.0
    assert dict(config.prefer) == {}
    assert config.block == ()


def test_keys_left_blank_mean_the_defaults(tmp_path: Path) -> None:
    keys = ["aliases", "generator", "error_handlers", "poll_interval", "plugins", "bash_options"]
    config = workflow(tmp_path, SMALLEST + "".join(f"{key}:\n" for key in keys))
    assert (dict(config.aliases), config.generator, config.error_handlers) == ({}, "bash", ())
    assert (config.poll_interval, config.block, config.generator_options) == (2.0, (), {"bash": []})


def test_relative_path_is_made_absolute_and_spelt_in_one_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow(tmp_path, SMALLEST)
    (tmp_path / "add").mkdir()
    monkeypatch.chdir(tmp_path / "add")
    assert load_workflow_config("../motoko.yaml").path == tmp_path / "motoko.yaml"


def test_alias_of_an_alias_is_resolved_to_the_task_manager(tmp_path: Path) -> None:
    config = workflow(tmp_path, SMALLEST + "aliases:\n  first: second\n  second: mult\n")
    assert dict(config.aliases) == {"first": "mult", "second": "mult"}


@pytest.mark.parametrize("name", ["slurm", "slurmCoat"])
def test_generator_has_the_same_name_with_and_without_coat(tmp_path: Path, name: str) -> None:
    assert workflow(tmp_path, SMALLEST + f"generator: {name}\n").generator == "slurm"


def test_generator_options_are_a_list_or_a_mapping(tmp_path: Path) -> None:
    options = "bash_options: {slots: 4}\nslurm_options: [time=1:00, qos=high]\nmyCoat_options: [a]\n"
    config = workflow(tmp_path, SMALLEST + options)
    assert config.generator_options == {
        "bash": {"slots": 4},
        "slurm": ["time=1:00", "qos=high"],
        "my": ["a"],
    }


def test_error_handlers_keep_their_order_and_settings(tmp_path: Path) -> None:
    text = SMALLEST + "error_handlers:\n  - ignore\n  - retry: {times: 3}\n  - escalate:\n"
    assert workflow(tmp_path, text).error_handlers == (
        ("ignore", {}),
        ("retry", {"times": 3}),
        ("escalate", {}),
    )


def test_poll_interval_is_in_seconds_as_a_float(tmp_path: Path) -> None:
    config = workflow(tmp_path, SMALLEST + "poll_interval: 5\n")
    assert config.poll_interval == 5.0
    assert isinstance(config.poll_interval, float)


def test_plugins_are_preferred_and_blocked(tmp_path: Path) -> None:
    text = SMALLEST + "plugins: {prefer: {generators.slurm: motoko-slurm}, block: [pbs]}\n"
    config = workflow(tmp_path, text)
    assert dict(config.prefer) == {"generators.slurm": "motoko-slurm"}
    assert config.block == ("pbs",)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("zeo:///data/add", "zeo:///data/add"),
        ("zeo://cluster.example.org:8080", "zeo://cluster.example.org:8080"),
        ("zeo://far/add", "zeo://{directory}/far/add"),
        ("zeo://../far", "zeo://{parent}/far"),
        ("zeo://~/add", "zeo:///home/me/add"),
        ("zeo://$HOME/add", "zeo:///home/me/add"),
        ("zeo://$NODE:80", "zeo://node7:80"),
    ],
)
def test_host_is_made_absolute_and_its_variables_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("NODE", "node7")
    text = f"task_managers:\n  add:\n    host: {host}\norchestrator: orchestrator.main\n"
    expected = expected.format(directory=tmp_path, parent=tmp_path.parent)
    assert workflow(tmp_path, text).task_managers["add"].host == expected


def test_merged_mappings_are_no_duplicates(tmp_path: Path) -> None:
    text = "x_options: &x {slots: 1, a: 2}\ny_options: {<<: *x, slots: 3}\n"
    config = workflow(tmp_path, SMALLEST + text)
    assert config.generator_options["y"] == {"slots": 3, "a": 2}


def test_anchor_inside_itself_does_not_hang(tmp_path: Path) -> None:
    config = workflow(tmp_path, SMALLEST + "x_options: &x {again: *x}\n")
    assert "again" in config.generator_options["x"]


def test_changing_a_copy_changes_nothing_else(tmp_path: Path) -> None:
    text = SMALLEST + "bash_options: {a: [1]}\nerror_handlers:\n  - retry: {for: [2]}\n"
    config = workflow(tmp_path, text)
    options: Any = config.generator_options["bash"]
    options["a"].append(9)
    config.error_handlers[0][1]["for"].append(9)
    config.raw["task_managers"].clear()
    config.raw["bash_options"]["a"].append(9)
    assert config.generator_options == {"bash": {"a": [1]}}
    assert config.error_handlers == (("retry", {"for": [2]}),)
    assert config.raw["task_managers"] == {"add": None, "mult": None}
    assert config.raw["bash_options"] == {"a": [1]}


def test_what_a_config_was_made_from_may_change_afterwards(tmp_path: Path) -> None:
    options: dict[str, Any] = {"bash": ["a"]}
    config = WorkflowConfig(
        path=tmp_path / "motoko.yaml",
        directory=tmp_path,
        task_managers={},
        orchestrator="a.b",
        generator_options=options,
    )
    options["bash"].append("b")
    assert config.generator_options == {"bash": ["a"]}


def test_plain_mappings_cannot_be_changed(tmp_path: Path) -> None:
    aliases: Any = workflow(tmp_path, SMALLEST).aliases
    with pytest.raises(TypeError):
        aliases["other"] = "add"


def test_raw_is_the_file_as_it_was_written(tmp_path: Path) -> None:
    text = SMALLEST + "generator: bashCoat\n"
    assert workflow(tmp_path, text).raw == {
        "task_managers": {"add": None, "mult": None},
        "orchestrator": "orchestrator.main",
        "generator": "bashCoat",
    }


# --------------------------------------------------------------------------- motoko.yaml that does not

ORCHESTRATOR = "orchestrator: orchestrator.main\n"

# What is added to SMALLEST (its lines are 1 to 4) or, in FILES, is all there is; the line; the words.
ADDED = {
    "unknown key": ("orchestator: a.b\n", 5, ["unknown key 'orchestator'", "Did you mean 'orchestrator'?"]),
    "options of nothing": ("_options: []\n", 5, ["unknown key '_options'"]),
    "key that is no text": ("on: 1\n", 5, ["bool True", "quotes"]),
    "duplicate key": ("orchestrator: b.c\n", 5, ["'orchestrator' is there twice", "line 4"]),
    "duplicate key deep inside": (
        "x_options:\n  y:\n    - {a: 1,\n       a: 2}\n",
        8,
        ["'a' is there twice", "line 7"],
    ),
    "aliases list": ("aliases: [add]\n", 5, ["'aliases' must be a mapping, not list ['add']", "Write"]),
    "alias of a list": ("aliases:\n  plus: [add]\n", 6, ["'aliases.plus' must be text", "list"]),
    "alias to itself": ("aliases:\n  a: a\n", 6, ["alias 'a' leads round in a circle: a -> a"]),
    "alias cycle": ("aliases:\n  a: b\n  b: c\n  c: b\n", 8, ["circle: a -> b -> c -> b", "task manager"]),
    "alias to nothing": ("aliases:\n  a: ad\n", 6, ["'a' names 'ad'", "Did you mean 'add'?"]),
    "alias to nothing by another": ("aliases:\n  a: b\n  b: ad\n", 7, ["'b' names 'ad'"]),
    "alias hides reserved": ("aliases:\n  finished: add\n", 6, ["'finished'", "workflow.finished"]),
    "alias hides all": ("aliases:\n  __all__: add\n", 6, ["'__all__'", "all task managers"]),
    "alias like task manager": ("aliases:\n  add: mult\n", 6, ["'add' has the name of a task manager"]),
    "alias with a dot": ("aliases:\n  a.b: add\n", 6, ["'a.b' cannot be a name", "letters"]),
    "generator list": ("generator: [bash]\n", 5, ["'generator' must be text, not list"]),
    "generator Coat": ("generator: Coat\n", 5, ["'Coat'"]),
    "options text": ("bash_options: --fast\n", 5, ["must be a list, not str '--fast'", "mapping"]),
    "option number": ("bash_options:\n  - a\n  - 3\n", 7, ["'bash_options[1]' must be text, not int 3"]),
    "options twice": ("x_options: []\nxCoat_options: []\n", 6, ["'xCoat_options' repeats", "x_options"]),
    "options key number": ("x_options:\n  1: a\n", 6, ["'x_options' must be text, not int 1", "quotes"]),
    "handlers text": ("error_handlers: retry\n", 5, ["'error_handlers' must be a list", "'retry'"]),
    "handler number": ("error_handlers:\n  - 1\n", 6, ["'error_handlers[0]' must be text", "int 1"]),
    "handler with two keys": (
        "error_handlers:\n  - ignore\n  - retry:\n    times: 3\n",
        7,
        ["'error_handlers[1]' must have one key", "indented"],
    ),
    "handler settings": (
        "error_handlers:\n  - retry: 3\n",
        6,
        ["'error_handlers[0].retry' must be a mapping, not int 3"],
    ),
    "poll_interval 0": ("poll_interval: 0\n", 5, ["above 0", "int 0", "poll_interval: 2.0"]),
    "poll_interval text": ("poll_interval: 2s\n", 5, ["number of seconds", "str '2s'"]),
    "poll_interval bool": ("poll_interval: true\n", 5, ["number of seconds", "bool True"]),
    "poll_interval nan": ("poll_interval: .nan\n", 5, ["number of seconds", "nan"]),
    "poll_interval inf": ("poll_interval: .inf\n", 5, ["number of seconds", "inf"]),
    "plugins list": ("plugins: [a]\n", 5, ["'plugins' must be a mapping, not list"]),
    "plugins key": ("plugins:\n  blocks: [a]\n", 6, ["unknown key 'blocks' in 'plugins'", "'block'?"]),
    "prefer nested": (
        "plugins:\n  prefer:\n    generators: {a: b}\n",
        7,
        ["'plugins.prefer.generators' must be text, not dict"],
    ),
    "block text": ("plugins:\n  block: pbs\n", 6, ["'plugins.block' must be a list, not str 'pbs'"]),
}

FILES = {
    "empty": ("", 1, ["motoko.yaml is empty", "task_managers:"]),
    "comment only": ("# nothing yet\n\n", 1, ["motoko.yaml is empty"]),
    "null": ("---\n~\n", 2, ["motoko.yaml is empty"]),
    "list": ("- a\n", 1, ["must be a mapping, not list ['a']"]),
    "text": ("just words\n", 1, ["must be a mapping, not str 'just words'"]),
    "not YAML": ("a: 1\nb: [1, 2\nc: 3\n", 3, ["not YAML", "that begins on line 2)", "indentation"]),
    "tab": ("a:\n\tb: 1\n", 2, ["not YAML", "'\\t'", "tabs"]),
    "two documents": ("a: 1\n---\nb: 1\n", 2, ["not YAML", "single document"]),
    "python tag": (
        "a: 1\nb: !!python/object/apply:os.getcwd []\n",
        2,
        ["!!python/object/apply:os.getcwd is not allowed"],
    ),
    "other tag": ("a: 1\nb: !secret x\n", 2, ["!secret is not allowed"]),
    "impossible date": ("a: 1\nb: 2024-13-45\n", 2, ["'2024-13-45' is not a valid timestamp"]),
    "control character": ("a: 1\nb: \x07\n", 2, ["not YAML", "special characters"]),
    "no task_managers": (ORCHESTRATOR, 1, ["'task_managers' is missing", "Write"]),
    "no orchestrator": ("task_managers: {add: }\n", 1, ["'orchestrator' is missing", "orchestrator.main"]),
    "task_managers blank": ("task_managers:\n" + ORCHESTRATOR, 1, ["names no task manager"]),
    "task_managers list": (
        ORCHESTRATOR + "task_managers: [add]\n",
        2,
        ["'task_managers' must be a mapping, not list ['add']", "one <study>: per line"],
    ),
    "task_managers text": (ORCHESTRATOR + "task_managers: add\n", 2, ["must be a mapping, not str 'add'"]),
    "task manager number": (
        ORCHESTRATOR + "task_managers:\n  1:\n",
        3,
        ["'task_managers'", "int 1", "quotes"],
    ),
    "task manager text": (
        ORCHESTRATOR + "task_managers:\n  add: zeo://x\n",
        3,
        ["'task_managers.add' must be a mapping, not str 'zeo://x'"],
    ),
    "task manager key": (
        ORCHESTRATOR + "task_managers:\n  add:\n    hots: zeo://x\n",
        4,
        ["unknown key 'hots' in 'task_managers.add'", "Did you mean 'host'?"],
    ),
    "task manager dot": (ORCHESTRATOR + "task_managers:\n  a.b:\n", 3, ["'a.b' cannot be a name", "letters"]),
    "task manager slash": (ORCHESTRATOR + "task_managers:\n  a/b:\n", 3, ["'a/b' cannot be a name"]),
    "task manager reserved": (
        ORCHESTRATOR + "task_managers:\n  finished:\n",
        3,
        ["'finished' in 'task_managers'", "workflow.finished", "another name"],
    ),
    "task manager __all__": (ORCHESTRATOR + "task_managers:\n  __all__:\n", 3, ["all task managers"]),
    "host list": (
        ORCHESTRATOR + "task_managers:\n  add:\n    host: [zeo]\n",
        4,
        ["'task_managers.add.host' must be text, not list ['zeo']", "zeo://<directory>"],
    ),
}


def assert_says(error: ConfigError, path: Path, line: int, words: list[str]) -> None:
    text = str(error)
    assert text.startswith(f"{path}:{line}: ")
    assert error.exit_code == 2
    assert error.hint
    for word in words:
        assert word in text


@pytest.mark.parametrize("case", ADDED)
def test_mistake_in_a_workflow_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, line, words = ADDED[case]
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, SMALLEST + text, reserved=("finished",))
    assert_says(caught.value, tmp_path / "motoko.yaml", line, words)


@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_workflow_is_refused_with_the_line(tmp_path: Path, case: str) -> None:
    text, line, words = FILES[case]
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, text, reserved=("finished",))
    assert_says(caught.value, tmp_path / "motoko.yaml", line, words)


@pytest.mark.parametrize(
    "spec",
    ["main", "a.b.c", "a.", ".b", "a-b.main", "1a.main", "a.class", "'a.b '", "orchestrator.py.main"],
)
def test_orchestrator_must_be_a_module_and_a_function(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"task_managers: {{add: }}\norchestrator: {spec}\n")
    words = ["'orchestrator' cannot be", spec.strip("'"), "<module>.<function>"]
    assert_says(caught.value, tmp_path / "motoko.yaml", 2, words)


def test_orchestrator_must_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, "task_managers: {add: }\norchestrator: 1.5\n")
    assert_says(caught.value, tmp_path / "motoko.yaml", 2, ["'orchestrator' must be text", "float 1.5"])


@pytest.mark.parametrize(
    "host",
    [
        "/data/add",
        "localhost:8080",
        "http://localhost:80",
        "zeo://",
        "zeo:/data",
        "zeo://node:",
        "zeo://node:0",
        "zeo://node:65536",
        "zeo://node:http",
        "zeo://:80",
        "zeo://a:b:80",
    ],
)
def test_host_must_be_a_directory_or_a_server(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"{ORCHESTRATOR}task_managers:\n  add:\n    host: {host!r}\n")
    words = ["'task_managers.add.host'", repr(host), "zeo://<directory>", "zeo://<host>:<port>"]
    assert_says(caught.value, tmp_path / "motoko.yaml", 4, words)


@pytest.mark.parametrize(
    ("host", "word"),
    [("zeo://$MOTOKO_UNSET/a", "$MOTOKO_UNSET is not set"), ("zeo://~motoko-nobody/a", "no home directory")],
)
def test_host_with_a_variable_that_means_nothing_is_refused(tmp_path: Path, host: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"{ORCHESTRATOR}task_managers:\n  add:\n    host: {host}\n")
    assert_says(caught.value, tmp_path / "motoko.yaml", 4, [host, word])


def test_mistake_in_a_merged_mapping_is_found_where_it_was_written(tmp_path: Path) -> None:
    text = f"{ORCHESTRATOR}x_options: &x\n  hots: 1\ntask_managers:\n  add:\n    <<: *x\n"
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, text)
    assert_says(caught.value, tmp_path / "motoko.yaml", 3, ["unknown key 'hots'"])


def test_mistake_that_replaces_a_merged_value_is_found_in_its_own_line(tmp_path: Path) -> None:
    text = f"{ORCHESTRATOR}x_options: &x\n  host: zeo://a\ntask_managers:\n  add:\n    <<: *x\n    host: 1\n"
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, text)
    assert_says(caught.value, tmp_path / "motoko.yaml", 7, ["int 1"])


def test_duplicate_key_is_recognised_by_its_value_and_not_its_spelling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, SMALLEST + "x_options:\n  {? [a] : 1, yes: 1,\n   true: 2}\n")
    assert_says(caught.value, tmp_path / "motoko.yaml", 7, ["True is there twice", "line 6"])


def test_missing_workflow_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow_config(tmp_path / "motoko.yaml")
    assert str(tmp_path / "motoko.yaml") in str(caught.value)
    assert "no such file" in str(caught.value)
    assert "-C DIR" in str(caught.value)


def test_directory_in_place_of_the_workflow_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_workflow_config(tmp_path)


def test_file_that_is_not_utf8_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "motoko.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load_workflow_config(tmp_path / "motoko.yaml")
    assert_says(caught.value, tmp_path / "motoko.yaml", 2, ["0xe9", "UTF-8"])


# --------------------------------------------------------------------------- bd.yaml


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
