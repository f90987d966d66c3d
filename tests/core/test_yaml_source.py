"""What is no YAML, or not what YAML should be, and where in a file something is."""

from __future__ import annotations

from pathlib import Path

import pytest

from motoko_core.config import load_workflow_config
from motoko_core.errors import ConfigError
from tests.core.config_files import ORCHESTRATOR, SMALLEST, assert_refused, assert_says, workflow


def test_merged_mappings_are_no_duplicates(tmp_path: Path) -> None:
    text = "x_options: &x {slots: 1, a: 2}\ny_options: {<<: *x, slots: 3}\n"
    config = workflow(tmp_path, SMALLEST + text)
    assert config.generator_options["y"] == {"slots": 3, "a": 2}


def test_anchor_inside_itself_does_not_hang(tmp_path: Path) -> None:
    config = workflow(tmp_path, SMALLEST + "x_options: &x {again: *x}\n")
    assert "again" in config.generator_options["x"]


# The file; the line; the words.
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
}


@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_workflow_is_refused_with_the_line(tmp_path: Path, case: str) -> None:
    assert_refused(tmp_path, *FILES[case])


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
