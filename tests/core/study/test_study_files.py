"""The files of a study: read again when they have changed, and only then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from motoko_core.config import StudyConfig, load_study_config
from motoko_core.errors import ConfigError
from motoko_core.session import Session, transact, use
from motoko_core.study.study_files import FilesOnDisk
from motoko_core.workflow import Workflow


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    (tmp_path / "bd.yaml").write_text("study: it\njob:\n  x: float\nrun:\n")
    for name in ("launch.sh", "doIt.py"):
        (tmp_path / name).write_text("one")
    return load_study_config(tmp_path)


def an_hour_later() -> float:
    return time.time() + 3600


def test_files_that_have_not_changed_are_not_read_again(config: StudyConfig) -> None:
    files = FilesOnDisk(config, an_hour_later)
    assert files.read() is files.read()


@pytest.mark.parametrize("name", ["launch.sh", "doIt.py"])
def test_changed_file_is_read_again(config: StudyConfig, name: str) -> None:
    files = FilesOnDisk(config, an_hour_later)
    before = files.read()
    (config.directory / name).write_text("another")
    assert files.read() is not before


def test_file_that_is_replaced_by_an_older_one_is_read_again(config: StudyConfig) -> None:
    older = config.directory / "older.sh"
    older.write_text("two")
    files = FilesOnDisk(config, an_hour_later)
    before = files.read().exec_id
    older.rename(config.directory / "launch.sh")
    assert files.read().exec_id != before


def test_change_that_leaves_no_trace_in_coarse_times_is_seen(config: StudyConfig) -> None:
    files = FilesOnDisk(config)
    path = config.directory / "launch.sh"
    seen = set()
    for number in range(20):  # of one size, several within a tick of the clock
        path.write_text(f"{number:02}")
        seen.add(files.read().exec_id)
    assert len(seen) == 20


def test_file_that_is_missing_is_named(config: StudyConfig) -> None:
    files = FilesOnDisk(config, an_hour_later)
    files.read()
    (config.directory / "doIt.py").unlink()
    with pytest.raises(ConfigError, match=r"needs the file 'doIt\.py'"):
        files.read()
    (config.directory / "doIt.py").mkdir()
    with pytest.raises(ConfigError, match=r"needs the file 'doIt\.py'"):
        files.read()


def test_files_outlive_the_transaction_that_stores_them(workflow: Workflow) -> None:
    (workflow.mult.study_config.directory / "doIt.py").write_text("# of this test alone")
    files = FilesOnDisk(workflow.mult.study_config, an_hour_later).read()
    with use(Session("undone")):
        files.store(workflow.mult.base)
    ids = transact("store", lambda: files.store(workflow.mult.base))
    with use(Session("look")):
        stored = workflow.mult.base.configfiles
        assert [stored[key].filename for key in ids] == ["launch.sh", "doIt.py"]
        assert stored[ids[1]].file == "# of this test alone"
