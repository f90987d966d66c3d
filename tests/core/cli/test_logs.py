"""``motoko logs``."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from motoko_core.cli.main import main
from tests.core.cli.conftest import MOTOKO_YAML, TIMEOUT_S, Tiny, command

Captured = pytest.CaptureFixture[str]

YAML = MOTOKO_YAML + "aliases: {one: first}\n"
LAUNCH = """\
#!/bin/bash
echo begin; echo trouble >&2
touch {directory}/busy
while [ ! -e {directory}/go ]; do sleep 0.02; done
printf 'the \\xff end'
exit 3
"""


@pytest.fixture
def created(tiny: Tiny, capsys: Captured) -> Tiny:
    tiny.write(yaml=YAML, launch=LAUNCH)
    assert main(["-C", str(tiny.path), "create"]) == 0
    tiny.create_tasks(x=[1])
    capsys.readouterr()
    return tiny


def directory(tiny: Tiny) -> Path:
    return tiny.path / "first" / "BD-first-runs" / "run-1"


def written(tiny: Tiny, state: str = "FINISHED", **files: str) -> Tiny:
    """As if first.1 had been executed."""
    directory(tiny).mkdir(parents=True)
    for kind, text in files.items():
        (directory(tiny) / f"a.{kind}1").write_text(text)
    tiny.change("first.1", state=state, run_path=str(directory(tiny)))
    return tiny


def call(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "logs", *words])


def test_both_files_or_one_of_them_without_a_server(created: Tiny, capsys: Captured) -> None:
    written(created, o="out\n", e="err\n").motoko("kill")
    for words, expected in {
        ("first.1",): "out\nerr\n",
        ("one.1", "--stdout"): "out\n",
        ("first.1", "--stderr"): "err\n",
    }.items():
        assert call(created, *words) == 0
        assert capsys.readouterr() == (expected, "")
    assert call(created, "first.1", "--follow") == 0
    assert capsys.readouterr() == ("out\nerr\n", "first.1 is FINISHED\n")
    assert created.processes() == []


def test_on_a_terminal_each_file_has_a_headline(created: Tiny) -> None:
    written(created, o="out\n", e="err\n")
    assert on_a_terminal(created, "first.1") == [
        *(f"==> {directory(created)}/a.o1 <==", "out", ""),
        *(f"==> {directory(created)}/a.e1 <==", "err"),
    ]
    assert on_a_terminal(created, "first.1", "--stderr") == ["err"]


def on_a_terminal(tiny: Tiny, *words: str) -> list[str]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command("logs", *words), cwd=tiny.path, stdout=theirs) as process:
        os.close(theirs)
        text = b""
        while chunk := _read(ours):
            text += chunk
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    return text.decode().splitlines()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # what Linux says when the other side has closed
        return b""


def test_a_file_that_is_neither_text_nor_small_comes_through_as_it_is(created: Tiny) -> None:
    content = os.urandom(3_000_001)
    written(created, o="")
    (directory(created) / "a.o1").write_bytes(content)
    result = subprocess.run(
        command("logs", "first.1", "--stdout"), cwd=created.path, capture_output=True, check=True
    )
    assert result.stdout == content


def test_following_ends_with_the_run(created: Tiny) -> None:
    with subprocess.Popen(
        command("logs", "first.1", "--follow"),
        cwd=created.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        waits = process.stderr.readline().decode()
        assert waits == "first.1 waits for a launcher; none is running: `motoko launcher` starts one\n"
        created.motoko("launcher")
        lines = {process.stdout.readline(), process.stdout.readline()}
        assert lines == {b"begin\n", b"trouble\n"}
        assert process.poll() is None
        (created.path / "go").touch()
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert out == b"the \xff end"
        assert err == b"first.1 is FAILED (EXIT_CODE, exit code 3)\n"
        assert process.returncode == 0


def test_following_ends_with_ctrl_c(created: Tiny) -> None:
    created.motoko("launcher")
    created.wait_for("busy")
    with subprocess.Popen(
        command("logs", "first.1", "-f"), cwd=created.path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    (created.path / "go").touch()


def test_what_a_scheduler_has_named_after_its_job_is_found(created: Tiny, capsys: Captured) -> None:
    written(created, o="")
    (directory(created) / "a.o1").unlink()
    (directory(created) / "a.o4711").write_text("out\n")
    assert call(created, "first.1") == 0
    assert capsys.readouterr().out == "out\n"


def test_a_run_that_waits_for_another_attempt_shows_the_last_one(created: Tiny, capsys: Captured) -> None:
    written(created, "CREATED", o="out\n")
    assert call(created, "first.1") == 0
    captured = capsys.readouterr()
    assert captured.out == "out\n"
    assert "waits to be executed again" in captured.err


def test_what_is_not_there_is_said(created: Tiny, capsys: Captured) -> None:
    assert call(created, "first.1") == 1
    assert "first.1 has not begun: it waits for a launcher; none is running" in capsys.readouterr().err
    created.change("first.1", state="FAILED", motoko_failure={"reason": "CANCELLED", "exit_code": None})
    assert call(created, "first.1", "--follow") == 1
    message = "first.1 has never been executed: it is FAILED (CANCELLED)\nfirst.1 is FAILED (CANCELLED)\n"
    assert capsys.readouterr().err == message
    written(created)
    assert call(created, "first.1") == 1
    assert "first.1 is FINISHED, and has left no such file: a.o1 and a.e1 in" in capsys.readouterr().err
    refused = {"reason": "SUBMIT", "exit_code": None, "stderr": "sbatch: no such partition\n"}
    created.change("first.1", state="FAILED", motoko_failure=refused)
    assert call(created, "first.1") == 1
    message = capsys.readouterr().err
    assert "first.1 is FAILED (SUBMIT), and has left no such file" in message
    assert message.endswith("\nsbatch: no such partition\n")
    created.change("first.1", state="START")
    assert call(created, "first.1", "--stderr") == 1
    assert "has written nothing yet: a.e1 in" in capsys.readouterr().err
    shutil.rmtree(directory(created))
    assert call(created, "first.1") == 1
    assert f"the directory of first.1 is gone: {directory(created)}" in capsys.readouterr().err


def test_a_reference_that_leads_nowhere(created: Tiny, capsys: Captured) -> None:
    for reference, code, message in (
        ("frist.1", 2, "Did you mean 'first'?"),
        ("first", 1, "not a reference"),
        ("first.x", 1, "not a reference"),
        ("first.9", 1, "'first' has no run 9"),
    ):
        assert call(created, reference) == code
        assert message in capsys.readouterr().err
