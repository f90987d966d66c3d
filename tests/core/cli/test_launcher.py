"""``motoko launcher status`` and ``stop``."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from motoko_core import locks
from motoko_core.cli.main import main
from motoko_core.daemons import is_gone, wait_until
from motoko_core.locks import held
from tests.core.cli.conftest import BUSY_SH, MOTOKO_YAML, TIMEOUT_S, Tiny, command

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def created(tiny: Tiny, capsys: Captured) -> Iterator[Tiny]:
    tiny.write(yaml=MOTOKO_YAML.replace("first:", "first: {slots: 2, max_running: 9}"), launch=BUSY_SH)
    assert main(["-C", str(tiny.path), "create"]) == 0
    capsys.readouterr()
    yield tiny
    (tiny.path / "go").touch()


def call(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "launcher", *words])


def test_status_without_a_launcher_or_servers(created: Tiny, capsys: Captured) -> None:
    first, second, third, *_ = created.create_tasks(x=[1, 2, 3, 4, 5])
    created.change(first, state="START")
    created.change(second, state="FORWARDED")
    created.change(third, state="FAILED")
    created.motoko("kill")
    assert call(created, "status") == 0
    idle, empty, *table = capsys.readouterr().out.splitlines()
    assert idle == "no launcher is running; `motoko launcher` starts one"
    assert empty == ""
    assert table[0].split() == ["study", "generator", "limits", "runs"]
    assert "slots: 2, max_running: 9" in table[1]
    assert table[1].endswith("2 waiting, 1 started, 1 done, 1 failed")
    assert table[2].split() == ["second", "bash", "-", "none"]
    assert created.processes() == []


def test_status_shows_the_launcher_and_what_it_has_in_hand(created: Tiny, capsys: Captured) -> None:
    created.create_tasks(x=[1])
    assert call(created, "--generator", "bashCoat") == 0
    created.wait_for("busy")
    capsys.readouterr()
    assert call(created, "status", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    (launcher,) = content["launchers"]
    assert launcher["studies"] == ["first", "second"]
    assert launcher["generator"] == "bashCoat"
    assert launcher["log"] == str(created.path / ".wf" / "launcher.log")
    assert psutil.Process(launcher["pid"]).is_running()
    assert content["studies"]["first"]["slots"] == 2
    assert content["studies"]["first"]["runs"]["launched"] == 1
    assert call(created, "status", "--bd-study", "first") == 0
    text = capsys.readouterr().out
    assert f"the launcher (process {launcher['pid']}) serves first since 20" in text
    assert "launcher.log" in text
    assert "1 launched" in text
    assert "second" not in text

    # One of several studies is not stopped alone.
    assert call(created, "stop", "--bd_study", "first") == 1
    assert "serves first, second" in capsys.readouterr().err
    assert call(created, "stop") == 0
    assert capsys.readouterr().out == "stopped the launcher; its jobs go on\n"
    assert call(created, "stop") == 0
    assert capsys.readouterr().out == "no launcher was running\n"
    assert created.states()["first"] == ["launched"]


def test_a_launcher_for_all_is_refused_beside_one_for_a_study(created: Tiny, capsys: Captured) -> None:
    assert call(created, "--bd-study", "second") == 0
    assert call(created) == 1
    message = capsys.readouterr().err
    assert "a launcher serves second (process " in message
    assert "none serves first" in message
    assert "`motoko launcher --bd-study first`" in message
    assert call(created, "--bd-study", "first") == 0
    assert call(created) == 0
    assert "at work already" in capsys.readouterr().out
    result = created.motoko("launcher", "--do-not-detach", code=1)
    assert "a launcher of study 'first' is running already (process " in result.stderr
    assert call(created, "stop") == 0
    assert capsys.readouterr().out.count("; its jobs go on") == 2


def test_a_launcher_in_a_terminal_is_shown_and_stopped(created: Tiny, capsys: Captured) -> None:
    with created.started("launcher", "--do-not-detach", "--bd-study", "second") as process:
        created.wait_for_launcher(process)
        assert call(created, "status") == 0
        text = capsys.readouterr().out
        assert f"(process {process.pid}) serves second since" in text
        assert "; it writes to the program that started it" in text
        assert "no launcher serves first" in text
        assert call(created, "stop") == 0
        assert f"stopped a launcher (process {process.pid})" in capsys.readouterr().out
        assert process.wait(TIMEOUT_S) == 0


def test_where_a_launcher_writes_that_has_no_log(created: Tiny, capsys: Captured) -> None:
    lock = created.path / "second" / ".bd" / "launcher.lock"
    words = command("launcher", "--do-not-detach", "--bd-study", "second")
    controller, terminal = pty.openpty()
    with (created.path / "mine.log").open("wb") as file:
        for output, told in (
            (terminal, "it writes to the terminal that it was started in"),
            (file, f"its log: {created.path}/mine.log"),
        ):
            with subprocess.Popen(words, cwd=created.path, stdout=output, stderr=output) as process:
                assert wait_until(lambda pid=process.pid: locks.holder(lock) == pid, TIMEOUT_S)  # type: ignore[misc]
                assert call(created, "status") == 0
                assert f"; {told}\n" in capsys.readouterr().out
                process.terminate()
    os.close(controller)
    os.close(terminal)


def test_a_launcher_whose_manager_was_killed_writes_to_nobody(created: Tiny, capsys: Captured) -> None:
    assert call(created) == 0
    pid = locks.holder(created.path / "first" / ".bd" / "launcher.lock")
    manager = psutil.Process(pid).parent()
    assert manager is not None
    manager.kill()
    assert wait_until(lambda: is_gone(manager), TIMEOUT_S)
    assert call(created, "status") == 0
    told = "; what it writes is lost, because the process that started it was killed\n"
    assert told in capsys.readouterr().out
    assert call(created, "stop") == 0


def test_the_launcher_of_motoko_run_is_not_stopped_alone(created: Tiny, capsys: Captured) -> None:
    with created.started("run", "-n", "a", "--count", "1") as process:
        created.wait_for("busy")
        assert call(created, "status") == 0
        text = capsys.readouterr().out
        assert "the launcher of `motoko run`" in text
        assert "launcher.log" in text
        assert call(created, "stop") == 1
        assert "belongs to a `motoko run`" in capsys.readouterr().err
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)


def test_a_launcher_on_another_machine_is_told_and_left_alone(
    created: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    lock = created.path / "first" / ".bd" / "launcher.lock"
    with held(lock, "a test", ""):
        lock.write_text(f" {os.getpid()} node7\n")
        assert call(created, "status") == 0
        assert f"(process {os.getpid()} on node7) serves first" in capsys.readouterr().out
        assert call(created, "stop") == 1
        assert "on node7: stop it there" in capsys.readouterr().err


def test_a_word_that_is_no_part_of_it(created: Tiny, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        call(created, "stats")
    assert "'status'" in capsys.readouterr().err
