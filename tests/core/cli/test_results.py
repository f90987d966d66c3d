from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from motoko_core.cli.main import main
from motoko_core.cli.results_formats import write_csv, write_json
from motoko_core.session import transact
from motoko_core.study.constraints import Names
from motoko_core.study.table import Header, Row
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def results(workflow: Workflow, capsys: Captured) -> Callable[..., str]:
    """Call ``motoko results`` for the tasks of this test; answer what it wrote."""

    def call(*words: str, code: int = 0) -> str:
        arguments = ["-C", workflow.directory, "results", "--run-name", str(workflow.run_name), *words]
        found = main(arguments)
        written = capsys.readouterr()
        assert found == code, written.err
        return written.err if code else written.out

    return call


@pytest.fixture
def tasks(workflow: Workflow) -> list[str]:
    """Two tasks of ``mult``, the second with results, and one of ``add``."""
    references = create_tasks(workflow, x=[1.5, 2.5], label="a, b")

    def finish() -> None:
        ((run,),) = workflow.get_runs([references[1]]).values()
        run.y = [1, float("nan")]
        run.start()
        run.finish()

    transact("the test", finish)
    return [*references, *create_tasks(workflow, "add", n=3)]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [f"{row['task']}.{row['id']}" for row in found]


# ------------------------------------------------------------------ formats


def test_csv_is_one_table_of_all_studies(results: Callable[..., str], tasks: list[str]) -> None:
    found = rows(results())  # in a pipe
    assert ids(found) == tasks
    first, second, other = found
    assert list(first)[:9] == ["task", "id", "job_id", "run_name", "state", "x", "n", "label", "items"]
    assert (first["state"], first["x"], first["label"], first["y"]) == ("CREATED", "1.5", "a, b", "")
    assert (second["state"], json.loads(second["y"])[0]) == ("FINISHED", 1)
    assert (other["n"], other["x"], other["y"]) == ("3", "", "")


def test_json_is_a_list_of_objects(results: Callable[..., str], tasks: list[str]) -> None:
    text = results("--format", "json")
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert ids(found) == tasks
    assert (found[0]["x"], found[0]["y"], found[1]["y"]) == (1.5, None, [1, None])
    assert found[1]["start_time"].startswith("20")
    assert "y" not in found[2]


def test_table_leaves_out_how_runs_were_executed(results: Callable[..., str], tasks: list[str]) -> None:
    text = results("--format", "table")
    assert "mult: 2 tasks" in text
    assert "add: 1 task\n" in text
    assert "FINISHED" in text
    assert "start_time" not in text


def test_parquet_keeps_types(results: Callable[..., str], tasks: list[str], tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    results("-o", str(path), "--task", "mult")
    found = parquet.read_table(path)
    types = {name: str(found.schema.field(name).type) for name in ("id", "x", "state", "start_time", "n")}
    assert types["id"] == "int64"
    assert types["x"] == "double"
    assert types["state"] == "string"
    assert types["start_time"].startswith("timestamp")
    assert found.column("y").to_pylist()[0] is None
    assert found.column("x").to_pylist() == [1.5, 2.5]
    results("-o", str(path))
    assert parquet.read_table(path).column("task").to_pylist() == ["mult", "mult", "add"]


def test_parquet_keeps_what_it_has_no_type_for_as_json(
    workflow: Workflow, results: Callable[..., str], tmp_path: Path
) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    set_state(workflow, first, "FAILED", motoko_failure={"reason": "LOST"}, mixed=1)
    set_state(workflow, second, "START", mixed="word")
    path = tmp_path / "found.parquet"
    results("-o", str(path), "--task", "mult")
    found = parquet.read_table(path)
    assert found.column("motoko_failure").to_pylist() == ['{"reason": "LOST"}', None]
    assert found.column("mixed").to_pylist() == ["1", "word"]


def test_parquet_without_its_package_says_what_to_install(
    results: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    text = results("-o", str(tmp_path / "it.parquet"), code=1)
    assert "pip install 'motoko[parquet]'" in text
    assert list(tmp_path.iterdir()) == []


def test_values_that_no_format_has_a_word_for_are_written(
    workflow: Workflow, results: Callable[..., str]
) -> None:
    (run,) = create_tasks(workflow, x=1.0)
    odd = {
        "complex": 1 + 2j,
        "set": {1},
        "keys": {(1, 2): "a"},
        "text": 'a "quoted"\nline',
        "nan": float("inf"),
    }
    set_state(workflow, run, "START", **odd)
    (found,) = rows(results("--task", "mult"))
    assert (found["complex"], found["set"], found["nan"]) == ("(1+2j)", "[1]", "inf")
    assert found["keys"] == '{"(1, 2)": "a"}'
    assert found["text"] == odd["text"]
    (found,) = json.loads(results("--task", "mult", "--format", "json"))
    assert (found["keys"], found["nan"], found["text"]) == ({"(1, 2)": "a"}, None, odd["text"])


# ------------------------------------------------------------------ which tasks


def test_task_and_constraints_choose(results: Callable[..., str], tasks: list[str]) -> None:
    assert ids(rows(results("--task", "plus"))) == tasks[2:]  # an alias
    assert ids(rows(results("--task", "mult", "--constraints", "state = FINISHED and x > 2"))) == [tasks[1]]


def test_no_task_is_a_header(results: Callable[..., str]) -> None:
    (header,) = results().splitlines()
    assert header.startswith("task,id,job_id,run_name,state,x,n,label,items,note,")
    assert json.loads(results("--format", "json")) == []
    assert "mult: 0 tasks" in results("--format", "table")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--task", "mul"], "Did you mean 'mult'?"),
        (["--constraints", "stat = FINISHED"], "Did you mean 'state'?"),
        (["--format", "parquet"], "-o FILE"),
        (["-o", "found.txt"], "--format csv"),
        (["-o", "/", "--format", "csv"], "is a directory"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(
    results: Callable[..., str], words: list[str], hint: str
) -> None:
    assert hint in results(*words, code=2)


def test_study_that_was_not_created_is_an_error(
    make_workflow: Callable[..., Workflow], capsys: Captured
) -> None:
    assert main(["-C", make_workflow().directory, "results"]) == 1
    assert "motoko create" in capsys.readouterr().err


# ------------------------------------------------------------------ files


def in_a_shell(commands: str, workflow: Workflow) -> subprocess.CompletedProcess[str]:
    script = (
        f'motoko() {{ {sys.executable} -m motoko_core.cli.main -C {workflow.directory} "$@"; }}\n{commands}'
    )
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_file_appears_when_it_is_complete(
    results: Callable[..., str], tasks: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "found.csv"
    path.write_text("before")
    path.chmod(0o600)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    assert results("-o", str(link)) == ""
    assert ids(rows(path.read_text())) == tasks
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(found.name for found in tmp_path.iterdir()) == ["found.csv", "link.csv"]


def test_full_disk_leaves_the_file_as_it_was(workflow: Workflow, tmp_path: Path) -> None:
    create_tasks(workflow, x=[float(i) for i in range(100)])
    path = tmp_path / "found.csv"
    path.write_text("before")
    # No file may become longer than a kilobyte.
    done = in_a_shell(
        f"ulimit -f 1; motoko results --format table -o {path}; motoko results -o {path}", workflow
    )
    assert done.returncode == 1
    assert f"motoko: error: cannot write {path}: File too large" in done.stderr
    assert "cannot keep the rows in a temporary file: File too large" in done.stderr
    assert "TMPDIR" in done.stderr
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_plain_file_is_not_replaced(
    results: Callable[..., str], tasks: list[str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    results("-o", str(pipe))
    reader.join()
    assert ids(rows(read[0])) == tasks
    assert pipe.is_fifo()
    assert "cannot write" in results("-o", str(tmp_path / "missing" / "it.csv"), code=1)


def test_output_can_be_named_as_a_device(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1.0, 2.0])
    for output in ("/dev/stdout", ">(cat)"):
        done = in_a_shell(f"motoko results -o {output} --format csv | cat", workflow)
        assert done.stdout.startswith("task,id,"), output
        assert done.stderr == ""


def test_ending_may_be_in_capitals(results: Callable[..., str], tasks: list[str], tmp_path: Path) -> None:
    results("-o", str(tmp_path / "FOUND.CSV"))
    assert ids(rows((tmp_path / "FOUND.CSV").read_text())) == tasks


def test_reader_that_goes_away_is_no_error(workflow: Workflow) -> None:
    create_tasks(workflow, x=[float(i) for i in range(300)])
    done = in_a_shell("motoko results | head -n 1", workflow)
    assert done.stdout.startswith("task,id,")
    assert done.stderr == ""


@pytest.mark.parametrize("write", [write_csv, write_json])
def test_memory_does_not_grow_with_the_rows(write: Callable[..., None]) -> None:
    class Counting:
        lines = 0

        def write(self, text: str) -> None:
            self.lines += text.count("\n")

    header = Header(Names(jobs={"id": int}, runs={"id": int}))
    content = "x" * 2000
    found = (header.take(Row({"id": i}, {"id": i, "content": f"{i} {content}"}, {})) for i in range(5_000))
    target = Counting()
    tracemalloc.start()
    write([("it", header, found)], target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert target.lines >= 5_000
    assert peak < 2 * 2**20
