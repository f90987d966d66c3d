"""``motoko orchestrator``."""

from __future__ import annotations

import signal

import pytest

from motoko_core.cli.main import main
from motoko_core.daemons import wait_until
from tests.core.cli.conftest import BUSY_SH, TIMEOUT_S, Tiny

Captured = pytest.CaptureFixture[str]

#: Waits for a task that never ends.
WAITING = """\
from pathlib import Path

async def main(workflow, **params):
    workflow.first.createTask(x=1, commit=True)
    Path("started").touch()
    await workflow.first.select("state = FINISHED")
"""


def test_the_workflow_is_executed_with_its_own_arguments(tiny: Tiny) -> None:
    tiny.motoko("create")
    tiny.motoko("launcher")
    result = tiny.motoko("orchestrator", "start", "--run_name", "a", "--count", "3", "--some-text", "it's $1")
    lines = result.stdout.splitlines()
    assert lines[:2] == ["text: it's $1", "the end of a"]
    assert [line.split() for line in lines[-2:]] == [
        ["first", "a", "3", "3", "FORWARDED"],
        ["second", "a", "3", "3", "FINISHED"],
    ]
    assert "fire: event=finish" in result.stderr
    status = tiny.motoko("orchestrator", "status").stdout
    assert "not running; the last one with run name 'a' finished" in status


def test_an_argument_that_was_not_given_leaves_the_default_of_main_alone(tiny: Tiny) -> None:
    tiny.write(
        orchestrator="""\
def populate_arg_parser(parser):
    parser.add_argument("--some_text")
    parser.add_argument("--needed")
async def main(workflow, needed, some_text="nothing", **params):
    print(some_text, needed, sorted(params))
"""
    )
    tiny.motoko("create")
    assert tiny.motoko("orchestrator", "start", "-n", "a").stdout.startswith("nothing None ['run_name']\n")


def test_help_shows_the_workflows_arguments(tiny: Tiny, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["-C", str(tiny.path), "orchestrator", "start", "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert "how many tasks" in text
    assert "--wait " not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "required: -n/--run-name"), (("--run-name", " "), "--run-name: the name is empty")],
)
def test_a_run_name_is_required(tiny: Tiny, words: tuple[str, ...], message: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["-C", str(tiny.path), "orchestrator", "start", *words])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_an_argument_of_the_workflows_wins_over_a_new_one_of_motokos(tiny: Tiny) -> None:
    tiny.write(
        orchestrator="""\
def populate_arg_parser(parser):
    parser.add_argument("--verbose", type=int)
    parser.add_argument("--wait-forever", type=int)
async def main(workflow, verbose, wait_forever, **params):
    print(verbose, wait_forever)
"""
    )
    tiny.motoko("create")
    words = ("orchestrator", "start", "-n", "a", "--verbose", "3", "--wait_forever", "4", "--wait", "1")
    assert tiny.motoko(*words).stdout.startswith("3 4\n")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("def main(:\n", 1, "orchestrator.py:1: the orchestrator orchestrator.py cannot be imported"),
        ("import nothing_like_this\n", 1, "nothing_like_this"),
        ("def other(): pass\n", 2, "names the function 'main'"),
        (
            "def main(): pass\ndef populate_arg_parser(p):\n    p.nothing()\n",
            1,
            "orchestrator.py:3: populate",
        ),
    ],
)
def test_an_orchestrator_that_cannot_be_loaded(
    tiny: Tiny, text: str, code: int, message: str, capsys: Captured
) -> None:
    tiny.write(orchestrator=text)
    assert main(["-C", str(tiny.path), "orchestrator", "start", "-n", "a"]) == code
    assert message in capsys.readouterr().err
    # The other commands do not need it.
    assert main(["-C", str(tiny.path), "orchestrator", "status"]) == 0


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [
        ("raise ValueError('too bad')", 1, "ValueError: too bad"),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('enough')", 1, "enough"),
    ],
)
def test_how_the_workflow_ends_is_the_exit_code(tiny: Tiny, statement: str, code: int, message: str) -> None:
    tiny.write(orchestrator=f"async def main(workflow, **params):\n    {statement}\n")
    tiny.motoko("create")
    result = tiny.motoko("orchestrator", "start", "-n", "a", code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_studies_that_were_not_created_are_an_error(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "orchestrator", "start", "-n", "a"]) == 1
    assert "`motoko create`" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_says_how_to_go_on(tiny: Tiny, number: signal.Signals) -> None:
    tiny.write(orchestrator=WAITING)
    tiny.motoko("create")
    with tiny.started("orchestrator", "start", "-n", "a") as process:
        tiny.wait_for("started")
        process.send_signal(number)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
    assert "`motoko orchestrator start --run-name a` goes on" in output
    assert "Traceback" not in output
    assert tiny.states()["first"] == ["CREATED"]
    assert "was stopped" in tiny.motoko("orchestrator", "status").stdout


def test_a_second_signal_ends_code_that_does_not_let_go(tiny: Tiny) -> None:
    tiny.write(
        orchestrator="""\
import time
from pathlib import Path
async def main(workflow, **params):
    Path("started").touch()
    while True:
        time.sleep(0.01)
"""
    )
    tiny.motoko("create")
    with tiny.started("orchestrator", "start", "-n", "a") as process:
        assert process.stdout is not None
        tiny.wait_for("started")
        process.send_signal(signal.SIGINT)
        while "again" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 1


def test_detached_it_says_where_its_log_is_and_can_be_stopped(tiny: Tiny) -> None:
    tiny.write(orchestrator=WAITING)
    tiny.motoko("create")
    output = tiny.motoko("orchestrator", "start", "--detach", "-n", "it's $1").stdout
    assert str(tiny.path / ".wf" / "wf.log") in output
    tiny.wait_for("started")
    status = tiny.motoko("orchestrator", "status").stdout
    assert "the orchestrator is running" in status
    assert '"it\'s $1"' in status
    second = tiny.motoko("orchestrator", "start", "-n", "b", code=1)
    assert "an orchestrator is running here" in second.stderr
    assert "stopped the orchestrator" in tiny.motoko("orchestrator", "stop").stdout
    assert "no orchestrator was running" in tiny.motoko("orchestrator", "stop").stdout
    logs = tiny.motoko("orchestrator", "status", "--logs").stdout
    assert "was stopped" in logs
    assert "goes on where it was" in logs


def test_detached_an_error_at_the_start_is_shown(tiny: Tiny) -> None:
    tiny.write(orchestrator="async def main(workflow, **params):\n    raise ValueError('too bad')\n")
    tiny.motoko("create")
    result = tiny.motoko("orchestrator", "start", "--detach", "-n", "a", code=None)
    if result.returncode:  # it may have held the lock when we looked
        assert "too bad" in result.stderr
    lock_is_free = lambda: "not running" in tiny.motoko("orchestrator", "status").stdout  # noqa: E731
    assert wait_until(lock_is_free, TIMEOUT_S)
    assert "failed: " in tiny.motoko("orchestrator", "status").stdout


def test_status_of_a_workflow_that_never_ran(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "orchestrator", "status", "--logs"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "the orchestrator is not running\n"
    assert "there is no log yet" in captured.err


def test_busy_tasks_do_not_keep_a_stopped_orchestrator(tiny: Tiny) -> None:
    tiny.write(orchestrator=WAITING, launch=BUSY_SH)
    tiny.motoko("create")
    tiny.motoko("launcher")
    with tiny.started("orchestrator", "start", "-n", "a") as process:
        tiny.wait_for("busy")
        assert f"(process {process.pid})" in tiny.motoko("orchestrator", "stop").stdout
        assert process.wait(TIMEOUT_S) == 1
    (tiny.path / "go").touch()
