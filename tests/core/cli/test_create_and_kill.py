from __future__ import annotations

import psutil
import pytest

from motoko_core.cli.main import main
from motoko_core.daemons import wait_until
from tests.core.cli.conftest import TIMEOUT_S, Tiny

Captured = pytest.CaptureFixture[str]


def test_create_launch_and_kill(tiny: Tiny, capsys: Captured) -> None:
    assert "created first, second" in tiny.motoko("create").stdout
    assert "serves first, second" in tiny.motoko("launcher").stdout
    again = tiny.motoko("launcher")
    assert "at work already" in again.stdout
    output = tiny.motoko("kill").stdout
    for title in ("the launcher", "study 'first'", "study 'second'"):
        assert title in output
    assert tiny.processes() == []
    assert main(["-C", str(tiny.path), "kill"]) == 0
    assert capsys.readouterr().out == "nothing was running\n"


def test_create_names_its_directory(tiny: Tiny, capsys: Captured) -> None:
    assert main(["create", str(tiny.path)]) == 0
    assert str(tiny.path) in capsys.readouterr().out


def test_create_in_a_directory_without_a_workflow(nowhere: object, capsys: Captured) -> None:
    assert main(["create", "there"]) == 2
    assert "there is no motoko.yaml in there" in capsys.readouterr().err


def test_create_asks_before_it_drops_anything(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    words = ["-C", str(tiny.path), "create"]
    assert main(words) == 0
    marker = tiny.path / "first" / ".bd" / "marker"
    marker.touch()

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert main(words) == 1
    assert capsys.readouterr().err == "nothing was changed\n"
    assert marker.exists()
    assert main([*words, "--validated"]) == 0
    assert not marker.exists()


def test_create_without_anybody_to_ask_says_how(tiny: Tiny) -> None:
    tiny.motoko("create")
    assert "--validated" in tiny.motoko("create", code=1).stderr


def test_kill_of_one_study_leaves_the_other_alone(tiny: Tiny, capsys: Captured) -> None:
    words = ["-C", str(tiny.path)]
    main([*words, "create"])
    assert main([*words, "kill", "--bd-study", "first"]) == 0
    lines = tiny.processes()
    assert not [line for line in lines if "/first/" in line]
    assert [line for line in lines if "/second/" in line]


def test_kill_of_an_unknown_study_names_the_known_ones(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "kill", "--bd-study", "frist"]) == 2
    assert "'first'" in capsys.readouterr().err


def test_kill_reset_removes_everything(tiny: Tiny, capsys: Captured) -> None:
    words = ["-C", str(tiny.path)]
    main([*words, "create"])
    assert main([*words, "kill", "--reset"]) == 0
    assert not (tiny.path / ".wf").exists()
    assert not (tiny.path / "first" / ".bd").exists()
    assert "removed the data and results of first, second" in capsys.readouterr().out


def test_kill_reset_of_one_study_keeps_the_other(tiny: Tiny) -> None:
    words = ["-C", str(tiny.path)]
    main([*words, "create"])
    assert main([*words, "kill", "--reset", "--bd-study", "first"]) == 0
    assert not (tiny.path / "first" / ".bd").exists()
    assert (tiny.path / "second" / ".bd").exists()


def test_aggressive_kill_finds_a_server_that_no_socket_leads_to(tiny: Tiny, capsys: Captured) -> None:
    words = ["-C", str(tiny.path)]
    main([*words, "create"])
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or ()
        if any(str(tiny.path / "first") in word for word in line) and "zdaemon.zdrun" in " ".join(line):
            process.kill()
            process.wait(TIMEOUT_S)
    for socket in (tiny.path / "first" / ".bd").glob("*.socket"):
        socket.unlink()
    assert main([*words, "kill", "--aggressive", "--bd-study", "first"]) == 0
    assert wait_until(lambda: not [line for line in tiny.processes() if "/first/" in line], TIMEOUT_S)


def test_kill_stops_a_launcher_in_the_foreground(tiny: Tiny) -> None:
    tiny.motoko("create")
    with tiny.started("launcher", "--do-not-detach") as launcher:
        tiny.wait_for_launcher(launcher)
        assert f"a launcher (process {launcher.pid})" in tiny.motoko("kill").stdout
        assert launcher.wait(TIMEOUT_S) == 0


def test_a_launcher_for_a_study_that_was_not_created(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "launcher"]) == 1
    assert "motoko create" in capsys.readouterr().err


def test_an_unknown_generator_is_refused_at_once(tiny: Tiny, capsys: Captured) -> None:
    main(["-C", str(tiny.path), "create"])
    assert main(["-C", str(tiny.path), "launcher", "--generator", "bush"]) == 2
    assert "'bash'" in capsys.readouterr().err
