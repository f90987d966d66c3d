from __future__ import annotations

import os
from pathlib import Path

import pytest

from motoko_core.cli.main import main
from tests.core.cli.conftest import Tiny

Captured = pytest.CaptureFixture[str]


def test_init_writes_a_workflow_that_runs(nowhere: Path, capsys: Captured) -> None:
    assert main(["init", "new"]) == 0
    assert "motoko run new --run-name first" in capsys.readouterr().out
    tiny = Tiny(nowhere)
    result = tiny.motoko("run", "new", "--run-name", "first")
    assert "the total is 14" in result.stdout
    assert os.access(nowhere / "new" / "square" / "launch.sh", os.X_OK)


def test_init_here(nowhere: Path, capsys: Captured) -> None:
    assert main(["init"]) == 0
    assert "Try it: motoko run --run-name first" in capsys.readouterr().out
    assert (nowhere / "motoko.yaml").is_file()


def test_init_refuses_a_directory_with_files(nowhere: Path, capsys: Captured) -> None:
    (nowhere / "mine").touch()
    assert main(["init"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in nowhere.iterdir()] == ["mine"]
    assert main(["init", "--force"]) == 0
    assert (nowhere / "motoko.yaml").is_file()


def test_init_never_overwrites(nowhere: Path, capsys: Captured) -> None:
    (nowhere / "README.md").write_text("mine")
    assert main(["init", "--force"]) == 2
    assert "README.md in . would be overwritten" in capsys.readouterr().err
    assert (nowhere / "README.md").read_text() == "mine"
    assert not (nowhere / "motoko.yaml").exists()


def test_init_refuses_a_file(nowhere: Path, capsys: Captured) -> None:
    (nowhere / "mine").touch()
    assert main(["init", "mine"]) == 2
    assert "mine is a file" in capsys.readouterr().err
