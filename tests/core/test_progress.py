"""The bar of work that takes a while: on a terminal that is free, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from rich.live import Live

from motoko_core.progress import PATIENCE_S, shown
from motoko_core.study.records import PORTION
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S
from tests.processes import ROOT

# Shows the bar at once.
SWEEP = """
import sys, transaction
from motoko_core import progress
from motoko_core.workflow import Workflow

path, run_name, count = sys.argv[1:]
progress.PATIENCE_S = 0.0
workflow = Workflow(path)
workflow.run_name = run_name
workflow.mult.createTask(n=range(int(count)), label=run_name)
transaction.abort()
"""


@contextmanager
def terminal() -> Iterator[tuple[IO[str], Callable[[], str]]]:
    """A terminal to write to; the function closes it, and answers what was written."""
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w")
    written: list[bytes] = []

    def read() -> None:
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:  # closed at the other end
                return
            if not data:
                return
            written.append(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def end() -> str:
        stream.close()
        reader.join(TIMEOUT_S)
        return b"".join(written).decode()

    try:
        yield stream, end
    finally:
        end()
        os.close(master)


@pytest.fixture(autouse=True)
def _terminal_of_some_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def work(*at_s: float) -> None:
    """Two steps, at these times after the beginning."""
    times = iter([0.0, *at_s])
    with shown(2, "working", clock=lambda: next(times)) as advance:
        for _ in at_s:
            advance(1)


def test_bar_is_shown_when_it_takes_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as (stream, end):
        monkeypatch.setattr(sys, "stderr", stream)
        work(0.0, PATIENCE_S)
        text = end()
    assert "working" in text
    assert "2/2" in text


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as (stream, end):
        monkeypatch.setattr(sys, "stderr", stream)
        work(0.0, 0.9 * PATIENCE_S)
        assert end() == ""


def test_nothing_is_shown_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work(PATIENCE_S, PATIENCE_S)
    monkeypatch.setattr(sys, "stderr", None)
    work(PATIENCE_S, PATIENCE_S)
    assert capsys.readouterr() == ("", "")


def test_nothing_is_shown_beside_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """``motoko run`` shows its table on standard output, and takes standard error over."""
    with terminal() as (stream, end):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        with Live("the table"):
            work(PATIENCE_S, PATIENCE_S)
        text = end()
    assert "the table" in text
    assert "working" not in text


def test_bar_of_a_sweep_is_on_the_terminal_only(workflow: Workflow) -> None:
    command = [sys.executable, "-c", SWEEP, workflow.config_path, workflow.run_name, str(2 * PORTION)]
    with terminal() as (stream, end):
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stream, timeout=60, check=True
        )
        text = end()
    assert "creating tasks in mult" in text
    assert f"{PORTION}/{2 * PORTION}" in text
    assert done.stdout == b""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert done.stdout == done.stderr == b""
