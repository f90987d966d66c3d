from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motoko_core.cli import output
from motoko_core.cli.counts import in_order, in_words
from motoko_core.cli.follow import follow


def test_columns_are_aligned_and_a_row_is_a_line() -> None:
    assert output.columns([["a", "long name"], ["something", ""], ["b\nc", "d"]]) == [
        "a          long name",
        "something  -",
        "b c        d",
    ]


def test_a_table_is_drawn_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    output.table(("name", "number"), [("[a]", 1), ("b", None)])
    text = capsys.readouterr().out
    assert "─" in text
    assert "[a]" in text


def test_writing_to_a_closed_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(output.OutputError):
        output.say("something")
    output.complain("something")
    assert not output.is_terminal()


def test_states_come_in_the_order_in_which_a_run_has_them() -> None:
    states = ["FAILURE", "OWN", "FAILED", "FINISHED", "START", "CREATED"]
    assert in_order(states) == ["CREATED", "START", "FINISHED", "OWN", "FAILED", "FAILURE"]
    assert in_words({"FINISHED": 3, "START": 1}) == "1 START, 3 FINISHED"
    assert in_words({}) == "no runs"


def test_following_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "l1.log", tmp_path / "l2.log"
    steps: list[Callable[[], object]] = [
        lambda: one.write_text("1\n2\n3\npar"),
        lambda: one.write_text("1\n2\n3\npartial\n"),
        lambda: two.write_text("other\n"),
        lambda: one.write_text("new\n"),
    ]

    def next_step(seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr("time.sleep", next_step)
    assert follow(tmp_path, "l*.log", lines=2) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        *("1", "2", "3", "partial"),
        *(f"==> {two} <==", "other", f"==> {one} <==", "new"),
    ]
    assert "waiting" in captured.err


def test_following_begins_with_the_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text("1\n2\n3\n")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert follow(tmp_path, "a.log", lines=2) == 0
    assert capsys.readouterr().out == "2\n3\n"


def test_a_stream_without_a_descriptor_needs_no_help() -> None:
    output._give_up(io.StringIO())


@pytest.mark.parametrize(("level", "heard"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_tracebacks_of_the_databases_libraries_are_for_debugging(level: int, heard: bool) -> None:
    library = logging.getLogger("txn.12345")
    with output.log_lines(level):
        assert library.isEnabledFor(logging.CRITICAL) is heard
    assert library.isEnabledFor(logging.CRITICAL)


def test_generators_of_ours_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    with output.log_lines(logging.INFO):
        logging.getLogger("motoko_plugins.generators.bash").info("the spawner has died")
    assert capsys.readouterr().err.endswith(" the spawner has died\n")
