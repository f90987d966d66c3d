"""``motoko cancel``."""

from __future__ import annotations

import pytest

from motoko_core.cli.main import main
from tests.core.cli.conftest import BUSY_SH, Tiny

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def created(tiny: Tiny) -> Tiny:
    """Studies whose tasks are busy once they are launched."""
    tiny.write(launch=BUSY_SH)
    assert main(["-C", str(tiny.path), "create"]) == 0
    return tiny


def call(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "cancel", *words])


def test_runs_are_cancelled_by_reference_task_manager_constraints_and_name(
    created: Tiny, capsys: Captured
) -> None:
    created.create_tasks(x=[1, 2, 3, 4, 5])
    created.create_tasks("second", x=[1, 2])
    created.create_tasks("second", "b", x=3)
    capsys.readouterr()
    assert call(created, "--task", "first.1", "first.2", "--task", "first.1") == 0
    assert capsys.readouterr().out == "cancelled 2 runs\n"
    assert call(created, "--constraints", "x < 4", "--bd_study", "first") == 0
    assert capsys.readouterr().out == "cancelled 1 run; 2 runs had ended already\n"
    assert call(created, "--task", "second", "--run_name", "b") == 0
    assert capsys.readouterr().out == "cancelled 1 run\n"
    assert call(created, "--run-name", "a") == 0
    assert capsys.readouterr().out == "cancelled 4 runs\n"
    assert created.states() == {"first": ["FAILED"] * 5, "second": ["FAILED"] * 3}
    assert call(created) == 0
    assert capsys.readouterr().out == "nothing waits or is under way\n"
    assert main(["-C", str(created.path), "info", "--verbose"]) == 0
    assert capsys.readouterr().out.count("CANCELLED") == 8


def test_it_asks_before_everything_is_cancelled(
    created: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    created.create_tasks(x=[1, 2])
    result = created.motoko("cancel", code=1)
    assert "2 of first" in result.stderr
    assert "--yes" in result.stderr
    questions = []

    def answer(question: str) -> str:
        questions.append(question)
        return "no"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert call(created) == 1
    assert "nothing was cancelled" in capsys.readouterr().err
    assert "2 of first" in questions[0]
    assert created.states()["first"] == ["CREATED", "CREATED"]
    assert call(created, "--yes") == 0
    assert created.states()["first"] == ["FAILED", "FAILED"]


def test_what_names_nothing_is_an_error_with_the_nearest(two_waiting: Tiny, capsys: Captured) -> None:
    wrong: list[tuple[tuple[str, ...], int, str]] = [
        (("--task", "frist.1"), 2, "Did you mean 'first'?"),
        (("--task", "frist"), 2, "Did you mean 'first'?"),
        (("--task", "first.12"), 1, "It has 2 runs, 1 to 2"),
        (("--task", "second.1"), 1, "It has no runs"),
        (("--task", "second.1", "--bd-study", "first"), 2, "is not of the study 'first'"),
        (("--run-name", "aa"), 2, "Did you mean 'a'?"),
        (("--constraints", "stat = FAILED"), 2, "state"),
        (("--bd-study", "frist"), 2, "Did you mean 'first'?"),
    ]
    for words, code, message in wrong:
        assert call(two_waiting, *words) == code
        assert message in capsys.readouterr().err
    assert two_waiting.states()["first"] == ["CREATED", "CREATED"]


@pytest.fixture
def two_waiting(created: Tiny, capsys: Captured) -> Tiny:
    created.create_tasks(x=[1, 2])
    capsys.readouterr()
    return created


def test_a_job_without_a_launcher_is_stopped(created: Tiny) -> None:
    (run,) = created.create_tasks(x=1)
    created.motoko("launcher")
    created.wait_for("busy")
    created.motoko("launcher", "stop")
    assert created.motoko("cancel", "--task", run).stdout == "cancelled 1 run\n"
    assert created.states()["first"] == ["FAILED"]
    created.motoko("kill")
    assert created.processes() == []


def test_the_launcher_at_work_stops_the_job(created: Tiny) -> None:
    (run,) = created.create_tasks(x=1)
    created.motoko("launcher")
    created.wait_for("busy")
    assert created.motoko("cancel", "--run-name", "a").stdout == "cancelled 1 run\n"
    assert "FAILED (CANCELLED" in created.motoko("logs", run, "--follow").stderr
    (run,) = created.create_tasks(x=2)
    result = created.motoko("cancel", "--task", run, "--no-wait").stdout
    assert result in ("cancelled 1 run\n", "asked to stop 1 job\n")  # the launcher may have claimed it
    assert "FAILED (CANCELLED" in created.motoko("logs", run, "--follow", code=None).stderr


def test_a_run_that_motoko_has_not_started_is_named(two_waiting: Tiny, capsys: Captured) -> None:
    two_waiting.change("first.1", state="START")
    assert call(two_waiting, "--yes") == 1
    captured = capsys.readouterr()
    assert captured.out == "cancelled 1 run\n"
    assert "nothing is known of the jobs of first.1" in captured.err
    assert two_waiting.states()["first"] == ["START", "FAILED"]
