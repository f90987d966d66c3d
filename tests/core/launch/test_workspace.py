from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError, TaskError
from motoko_core.launch.workspace import exec_script, prepare, replace_variables, stderr_tail


def replaced(text: str, job: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> str:
    return replace_variables(
        text, job=job or {}, run=run or {}, host="zeo:///tmp/x", study="jane_add", run_id=7
    )


def test_variables_come_from_the_job_the_run_and_the_study() -> None:
    text = "".join(f"__BLACKDYNAMITE__{name}__ " for name in ("x", "nproc", "dbhost", "study", "run_id"))
    assert replaced(text, {"x": 1.5}, {"nproc": 4}) == "1.5 4 zeo:///tmp/x jane_add 7 "


def test_job_entries_win_over_run_entries_and_those_over_the_rest() -> None:
    assert replaced("__BLACKDYNAMITE__x__", {"x": 1}, {"x": 2}) == "1"
    assert replaced("__BLACKDYNAMITE__study__", {}, {"study": "mine"}) == "mine"


def test_unknown_variables_and_other_capitals_stay() -> None:
    text = "__BLACKDYNAMITE__nobody__ __BLACKDYNAMITE__X__"
    assert replaced(text, {"x": 1}) == text


def test_a_value_is_not_searched_for_variables() -> None:
    job = {"x": "__BLACKDYNAMITE__y__", "y": "__BLACKDYNAMITE__x__"}
    assert replaced("__BLACKDYNAMITE__x__,__BLACKDYNAMITE__y__", job) == f"{job['x']},{job['y']}"


def test_names_may_hold_underscores_and_special_characters() -> None:
    job = {"x": 1, "x__y": 2, "_z": 3, "a.b": 4}
    text = "__BLACKDYNAMITE__x__y__ __BLACKDYNAMITE__x__ __BLACKDYNAMITE___z__ __BLACKDYNAMITE__a.b__"
    assert replaced(text, job) == "2 1 3 4"
    assert replaced("__BLACKDYNAMITE__x____BLACKDYNAMITE__x__", job) == "11"
    assert replaced("__BLACKDYNAMITE__aXb__", job) == "__BLACKDYNAMITE__aXb__"


def test_a_used_variable_without_value_is_an_error_that_names_it() -> None:
    assert replaced("nothing used", {"x": None}) == "nothing used"
    with pytest.raises(TaskError, match=r"run 7: the job parameter 'x' is not set"):
        replaced("__BLACKDYNAMITE__x__", {"x": None}, {"x": 1})
    with pytest.raises(TaskError, match="the run parameter 'start_time' is not set"):
        replaced("__BLACKDYNAMITE__start_time__", {}, {"start_time": None})


def test_the_script_tells_blackdynamite_where_it_is(tmp_path: Path) -> None:
    content = "; ".join(f'echo "$BLACKDYNAMITE_{n}"' for n in ("HOST", "STUDY", "SCHEMA", "RUN_ID", "USER"))
    script = exec_script(content, host="zeo:///a b/$HOME", study="jane_add", run_id=3, user="o'neil; exit 1")
    assert script.startswith("#!/bin/bash\nexport BLACKDYNAMITE_HOST='zeo:///a b/$HOME'\n")
    prepare(tmp_path, files={}, script_name="launch.sh", script=script)
    out = subprocess.run([tmp_path / "launch.sh"], check=True, capture_output=True, text=True).stdout
    assert out == "zeo:///a b/$HOME\njane_add\njane_add\n3\no'neil; exit 1\n"


def test_prepare_creates_the_directory_its_files_and_an_executable_script(tmp_path: Path) -> None:
    directory = tmp_path / "BD-add-runs" / "run-1"
    prepare(
        directory,
        files={"doIt.py": "a\r\nb\udcff", "launch.sh": "loses"},
        script_name="launch.sh",
        script="true\n",
    )
    assert (directory / "doIt.py").read_bytes() == b"a\r\nb\xff"
    assert not os.access(directory / "doIt.py", os.X_OK)
    assert (directory / "launch.sh").read_text() == "true\n"
    assert os.access(directory / "launch.sh", os.X_OK)


def test_another_attempt_replaces_files_and_keeps_what_the_run_wrote(tmp_path: Path) -> None:
    prepare(tmp_path, files={"input": "a much longer text"}, script_name="launch.sh", script="false")
    (tmp_path / "result").write_text("kept")
    with (tmp_path / "launch.sh").open() as open_in_a_process:
        prepare(
            tmp_path,
            files={"input": "short"},
            script_name="launch.sh",
            script="true",
        )
        assert open_in_a_process.read() == "false"
    assert (tmp_path / "launch.sh").read_text() == "true"
    assert (tmp_path / "input").read_text() == "short"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "launch.sh", "result"]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_text("precious")
    directory = tmp_path / "run-1"
    directory.mkdir()
    (directory / "input").symlink_to(shared)
    prepare(directory, files={"input": "new"}, script_name="launch.sh", script="")
    assert (shared.read_text(), (directory / "input").read_text()) == ("precious", "new")


@pytest.mark.parametrize("name", ["../escape", "sub/file", "/etc/passwd", "..", ".", "", "a\0b"])
def test_names_that_lead_out_of_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "run-1"
    with pytest.raises(ConfigError, match="is not the name of a file"):
        prepare(directory, files={name: ""}, script_name="launch.sh", script="")
    with pytest.raises(ConfigError, match="is not the name of a file"):
        prepare(directory, files={}, script_name=name, script="")
    assert not directory.exists()


def test_the_tail_of_stderr_is_whole_lines_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "wf.e1"
    path.write_bytes(b"first\nsecond\nthird \xff\n")
    assert stderr_tail(path) == "first\nsecond\nthird \N{REPLACEMENT CHARACTER}\n"
    assert stderr_tail(path, limit_bytes=12) == "third \N{REPLACEMENT CHARACTER}\n"
    assert stderr_tail(path, limit_bytes=4) == "d \N{REPLACEMENT CHARACTER}\n"


def test_a_missing_or_unreadable_stderr_has_an_empty_tail(tmp_path: Path) -> None:
    assert stderr_tail(tmp_path / "absent") == ""
    assert stderr_tail(tmp_path) == ""
