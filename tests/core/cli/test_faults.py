"""What the command line says when the machine does not play along."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from motoko_core.workflow import Workflow
from tests.core.cli.conftest import TIMEOUT_S, Tiny, command
from tests.faults import limit_files, respect_permissions


def call(tiny: Tiny, prepare: Callable[[], None], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=tiny.path,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def content(path: Path) -> dict[Path, bytes]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {file: file.read_bytes() for file in files if "__pycache__" not in file.parts}


@pytest.mark.parametrize("locked", ["all", "one study"])
def test_read_only_workflow_can_be_looked_at_and_nothing_is_half_done(tiny: Tiny, locked: str) -> None:
    tiny.motoko("run", "-n", "a")
    (tiny.path / "second" / "results.txt").write_text("of the user")
    before = content(tiny.path)
    top = tiny.path if locked == "all" else tiny.path / "first" / ".bd"
    places = [top, *(place for place in top.rglob("*") if place.is_dir())]
    for place in places:
        place.chmod(0o500)
    try:
        info = call(tiny, respect_permissions, "info")
        done = [
            call(tiny, respect_permissions, *words)
            for words in (["run", "-n", "b"], ["create", "--validated"], ["pack"])
        ]
    finally:
        for place in places:
            place.chmod(0o700)
    assert info.returncode == 0, info.stderr
    assert "2 FORWARDED" in info.stdout
    for result in done:
        assert result.returncode == 2, result.stderr
        assert "is not writable for you, and the database of study 'first' has to be written" in result.stderr
        assert "Traceback" not in result.stderr
    after = content(tiny.path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # The servers of what may be written are started first; only they leave traces.
    assert {path for path in changed if path.suffix in (".zeo", ".yaml", ".sh", ".txt", ".db")} == set()
    assert tiny.processes() == []


def test_disk_that_gets_full_stops_the_workflow_and_a_later_run_completes_it(tiny: Tiny) -> None:
    tiny.motoko("create")
    servers = [m.database.server for m in Workflow(tiny.path / "motoko.yaml").task_managers.values()]
    for server in servers:
        limit_files(server, 120_000)
    result = tiny.motoko("run", "-n", "a", "--count", "40", code=2)
    assert "the disk is full: the transaction could not be written to the database of study" in result.stderr
    assert "Traceback" not in result.stderr
    for server in servers:
        limit_files(server, -1)
    tiny.motoko("run", "-n", "a", "--count", "40")
    assert tiny.states() == {"first": ["FORWARDED"] * 40, "second": ["FINISHED"] * 40}


def test_file_that_may_not_be_written_is_named_without_a_traceback(tiny: Tiny) -> None:
    tiny.motoko("run", "-n", "a")
    state = tiny.path / ".wf"
    state.chmod(0o500)
    try:
        result = call(tiny, respect_permissions, "launcher")
    finally:
        state.chmod(0o700)
    assert result.returncode == 2
    assert result.stderr.startswith(f"motoko: error: {state}/")
    assert result.stderr.endswith(": Permission denied\n")
