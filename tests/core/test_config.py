"""motoko.yaml that works, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motoko_core.config import TaskManagerConfig, WorkflowConfig, load_workflow_config
from tests.core.config_files import SMALLEST, workflow


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


def test_a_task_manager_has_a_generator_options_and_limits_of_its_own(tmp_path: Path) -> None:
    text = """\
task_managers:
  add:
    generator: slurmCoat
    slurm_options: [time=1:00]
    bash_options: {stdout: true}
    slots: 4
    max_running: 10
  mult:
orchestrator: orchestrator.main
"""
    config = workflow(tmp_path, text)
    add, mult = config.task_managers["add"], config.task_managers["mult"]
    assert (add.generator, add.slots, add.max_running) == ("slurm", 4, 10)
    assert add.generator_options == {"slurm": ["time=1:00"], "bash": {"stdout": True}}
    assert config.where("slots", "add") == f"{tmp_path}/motoko.yaml:6"
    assert (mult.generator, mult.slots, mult.max_running, mult.generator_options) == (None, None, None, {})
    assert config.where("slots", "mult") == f"{tmp_path}/motoko.yaml"


def test_settings_of_a_task_manager_left_blank_mean_the_defaults(tmp_path: Path) -> None:
    keys = "".join(f"    {key}:\n" for key in ("host", "generator", "slots", "max_running", "bash_options"))
    text = f"task_managers:\n  add:\n{keys}orchestrator: orchestrator.main\n"
    add = workflow(tmp_path, text).task_managers["add"]
    assert (add.generator, add.slots, add.max_running, add.generator_options) == (
        None,
        None,
        None,
        {"bash": []},
    )


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
