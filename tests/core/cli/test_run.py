from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from motoko_core.cli.main import main
from motoko_core.cli.run import _take_directory
from motoko_core.daemons import wait_until
from tests.core.cli.conftest import BUSY_SH, MOTOKO_YAML, TIMEOUT_S, Tiny, command

Captured = pytest.CaptureFixture[str]


def test_run_does_everything_leaves_nothing_behind_and_goes_on(tiny: Tiny) -> None:
    lines = tiny.motoko("run", "--run-name", "a", "--count", "2").stdout.splitlines()
    assert lines[:3] == ["created first, second", "text: nothing", "the end of a"]
    assert [line.split() for line in lines[-3:]] == [
        ["study", "run_name", "runs", "states"],
        ["first", "a", "2", "2", "FORWARDED"],
        ["second", "a", "2", "2", "FINISHED"],
    ]
    assert tiny.processes() == []

    output = tiny.motoko("run", "--run_name", "a", "--count", "3").stdout
    assert "created" not in output
    assert tiny.states() == {"first": ["FORWARDED"] * 3, "second": ["FINISHED"] * 3}


def test_run_uses_what_is_at_work_already_and_leaves_it_so(tiny: Tiny) -> None:
    tiny.motoko("create")
    tiny.motoko("launcher", "--bd-study", "first")
    output = tiny.motoko("run", "-n", "a").stdout
    assert "a launcher serves first already; it is used" in output
    lines = " ".join(tiny.processes())
    assert "--bd-study first" in lines
    assert "--bd-study second" not in lines
    assert "runzeo" in lines


def test_run_from_elsewhere(tiny: Tiny, nowhere: Path) -> None:
    assert "the end of a" in Tiny(nowhere).motoko("run", str(tiny.path), "-n", "a").stdout


@pytest.mark.parametrize(
    ("words", "directory", "left"),
    [
        (["there", "-n", "a"], "there", ["-n", "a"]),
        (["-n", "a", "there"], "there", ["-n", "a"]),
        (["-n", "there"], None, ["-n", "there"]),
        (["--generator", "there"], None, ["--generator", "there"]),
        (["3", "-n", "a"], None, ["3", "-n", "a"]),
        ([], None, []),
    ],
)
def test_the_directory_is_the_first_or_the_last_word(
    nowhere: Path, words: list[str], directory: str | None, left: list[str]
) -> None:
    (nowhere / "there").mkdir()
    (nowhere / "there" / "motoko.yaml").touch()
    assert _take_directory(words) == (Path(directory) if directory else None)
    assert words == left


def test_a_directory_that_does_not_exist(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "run", "there", "-n", "a"]) == 2
    assert "there is no directory there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("yaml", "words", "message"),
    [
        ("generator: bush\n", (), "motoko.yaml:6: generator: there is no generator 'bush'"),
        ("", ("--generator", "bush"), "'bush'"),
        ("bash_options: {slits: 3}\n", (), "motoko.yaml:6: bash_options: unknown option 'slits'"),
        ("bash_options: {slots: many}\n", (), "motoko.yaml:6: bash_options: "),
        ("bash_options: [slits=3]\n", (), "motoko.yaml:6: bash_options: unknown option 'slits=3'"),
        ("error_handlers: [retyr]\n", (), "motoko.yaml:6: error_handlers: there is no error handler 'retyr'"),
        ("error_handlers: [{retry: {tmies: 3}}]\n", (), "motoko.yaml:6: error handler 'retry': "),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(
    tiny: Tiny, yaml: str, words: tuple[str, ...], message: str, capsys: Captured
) -> None:
    tiny.write(yaml=MOTOKO_YAML + yaml)
    assert main(["-C", str(tiny.path), "run", "-n", "a", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tiny.path / "first" / ".bd").exists()


def test_a_missing_file_of_a_study_is_said_before_anything_is_started(tiny: Tiny, capsys: Captured) -> None:
    (tiny.path / "second" / "launch.sh").unlink()
    assert main(["-C", str(tiny.path), "run", "-n", "a"]) == 2
    assert "launch.sh" in capsys.readouterr().err
    assert not (tiny.path / "first" / ".bd").exists()


def test_run_waits_for_the_last_tasks(tiny: Tiny) -> None:
    tiny.write(
        orchestrator="""\
from pathlib import Path
async def main(workflow, **params):
    workflow.first.createTask(x=1, commit=True)
    await workflow.first.select("state != CREATED")
    workflow.finished = True
""",
        launch=BUSY_SH,
    )
    with tiny.started("run", "-n", "a") as process:
        assert process.stdout is not None
        while "waiting for 1 task" not in process.stdout.readline():
            pass
        (tiny.path / "go").touch()
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    assert re.search(r"first +a +1 +1 FINISHED", output)


def test_a_task_that_fails_after_the_workflow_has_ended_is_an_error(tiny: Tiny) -> None:
    tiny.write(
        orchestrator="async def main(workflow, **params):\n    workflow.first.createTask(x=[1, 2])\n",
        launch=BUSY_SH + "echo broken >&2\nexit __BLACKDYNAMITE__x__\n",
    )
    words, pipe = command("run", "-n", "a"), subprocess.PIPE
    with subprocess.Popen(words, cwd=tiny.path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        while "waiting for 2 tasks" not in process.stderr.readline():
            assert process.poll() is None
        (tiny.path / "go").touch()
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
    assert "error: 2 tasks failed that the end of the workflow left under way:\n  first." in stderr
    assert "exit code 2" in stderr
    assert "    broken" in stderr
    assert "2 FAILED" in stdout
    # They are not this execution's fault.
    tiny.motoko("run", "-n", "a")


def test_an_error_of_the_workflow_ends_everything(tiny: Tiny) -> None:
    tiny.write(launch="#!/bin/bash\necho broken >&2\nexit 3\n")
    result = tiny.motoko("run", "-n", "a", code=1)
    assert "broken" in result.stderr
    assert "2 FAILED" in result.stdout
    assert tiny.processes() == []


def test_ctrl_c_stops_everything_and_run_goes_on_later(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a") as process:
        tiny.wait_for("busy")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
    assert "goes on where it was" in output
    assert re.search(r"stopped [12] tasks? that will be executed again from the start", output)
    assert re.search(r"first +a +2 +2 CREATED", output)
    assert "Traceback" not in output
    assert tiny.processes() == []
    assert set(tiny.states()["first"]) == {"CREATED"}
    (tiny.path / "go").touch()
    tiny.motoko("run", "-n", "a")


def test_kill_stops_a_run(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a") as process:
        tiny.wait_for("busy")
        assert f"the orchestrator (process {process.pid})" in tiny.motoko("kill").stdout
        assert process.wait(TIMEOUT_S) == 1
    assert tiny.processes() == []


def test_a_launcher_that_dies_is_noticed(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a") as process:
        tiny.wait_for("busy")
        [launcher] = psutil.Process(process.pid).children()
        launcher.kill()
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
    assert "the launcher ended with exit code -9" in output
    (tiny.path / "go").touch()
    # The next one finds the jobs again.
    assert wait_until(lambda: not [line for line in tiny.processes() if "launch.sh" in line], TIMEOUT_S)
    tiny.motoko("run", "-n", "a")


def test_a_second_run_beside_the_first_is_refused(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a") as process:
        tiny.wait_for("busy")
        assert "an orchestrator is running here" in tiny.motoko("run", "-n", "b", code=1).stderr
        (tiny.path / "go").touch()
        assert process.wait(TIMEOUT_S) == 0


def run_on_a_terminal(tiny: Tiny, *, interrupt_at: bytes | None = None) -> tuple[int, str]:
    """The exit code of ``motoko run``, and all that it writes; interrupted when it has written something."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command("run", "-n", "a"),
        cwd=tiny.path,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    data = b""
    with contextlib.suppress(OSError):  # the other side has gone
        while chunk := os.read(controller, 65536):
            data += chunk
            if interrupt_at is not None and interrupt_at in data:
                process.send_signal(signal.SIGINT)
                interrupt_at = None
    os.close(controller)
    return process.wait(TIMEOUT_S), data.decode()


def test_on_a_terminal_there_is_a_live_table(tiny: Tiny) -> None:
    code, text = run_on_a_terminal(tiny)
    assert code == 0
    assert re.search(r"a, 0:\d\d:\d\d", text)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert not re.search(r"\ba, *\r?\n", plain)  # the caption is not broken, however narrow the table
    assert "\x1b[" in text
    assert "the end of a" in text


def test_on_a_terminal_the_live_table_leaves_alone_what_ctrl_c_says(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    code, text = run_on_a_terminal(tiny, interrupt_at=b"launched")
    assert code == 1
    _, rest = text.split("press Ctrl-C again to stop at once")
    below = 0  # lines from the message to the cursor
    for move in re.findall(r"\n|\x1b\[1A", rest):
        below += 1 if move == "\n" else -1
        assert below > 0
    assert "goes on where it was" in rest
