"""Writing and reading motoko.yaml, and what has to be said about a mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motoko_core.config import WorkflowConfig, load_workflow_config
from motoko_core.errors import ConfigError

SMALLEST = "task_managers:\n  add:\n  mult:\norchestrator: orchestrator.main\n"  # the next line is 5
ORCHESTRATOR = "orchestrator: orchestrator.main\n"


def workflow(directory: Path, text: str, **options: Any) -> WorkflowConfig:
    path = directory / "motoko.yaml"
    path.write_text(text, encoding="utf-8")
    return load_workflow_config(path, **options)


def assert_says(error: ConfigError, path: Path, line: int, words: list[str]) -> None:
    text = str(error)
    assert text.startswith(f"{path}:{line}: ")
    assert error.exit_code == 2
    assert error.hint
    for word in words:
        assert word in text


def assert_refused(directory: Path, text: str, line: int, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(directory, text, reserved=("finished",))
    assert_says(caught.value, directory / "motoko.yaml", line, words)
