from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from motoko_core import lifecycle
from motoko_core.cleaning import clean, refuse_under_way
from motoko_core.cli.main import main
from motoko_core.errors import MotokoError
from motoko_core.exit_record import exit_record_path
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.core.cli.conftest import BUSY_SH, TIMEOUT_S, Tiny

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def done(tiny: Tiny) -> Tiny:
    """Tasks first.1 and first.2 of run name a, first.3 of run name b."""
    tiny.motoko("run", "-n", "a", "--count", "2")
    tiny.motoko("run", "-n", "b", "--count", "1")
    return tiny


def directory(tiny: Tiny, run_id: int) -> Path:
    return tiny.path / "first" / "BD-first-runs" / f"run-{run_id}"


def call(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "clean", *words])


def test_clean_makes_the_selected_runs_ready_again(done: Tiny, capsys: Captured) -> None:
    for wrong in ("stat = FAILED", "state ="):
        assert call(done, "--constraints", wrong) == 2
    capsys.readouterr()
    assert call(done, "--constraints", "runs.id = 2", "--bd_study", "first") == 0
    assert capsys.readouterr().out == "first: reset 1 run\n"
    assert done.states() == {
        "first": ["FORWARDED", "CREATED", "FORWARDED"],
        "second": ["FINISHED"] * 3,
    }
    assert directory(done, 1).is_dir()
    assert not directory(done, 2).exists()
    assert done.processes() == []

    # Without constraints: all runs of all studies, here of one run name.
    assert call(done, "--run-name", "b", "--yes") == 0
    assert capsys.readouterr().out == "first: reset 1 run\nsecond: reset 1 run\n"
    assert done.states()["first"] == ["FORWARDED", "CREATED", "CREATED"]
    # And they are executed again.
    done.motoko("run", "-n", "a", "--count", "2")
    assert directory(done, 2).is_dir()


def test_clean_delete_removes_the_runs(done: Tiny, capsys: Captured) -> None:
    assert call(done, "--delete", "--constraints", "state = FORWARDED, runs.id < 3") == 0
    assert capsys.readouterr().out == "first: deleted 2 runs\nsecond: deleted 0 runs\n"
    assert done.states()["first"] == ["FORWARDED"]
    assert not directory(done, 1).exists()
    # A deleted task is a new one when it is created again.
    done.motoko("run", "-n", "a", "--count", "2")
    assert len(done.states()["first"]) == 3


def test_runs_that_are_being_executed_are_refused(tiny: Tiny) -> None:
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a", "--count", "1") as process:
        tiny.wait_for("busy")
        refused = tiny.motoko("clean", "--delete", code=1)
        assert "these runs are being executed: first.1 (launched)" in refused.stderr
        assert "--constraints 'state != launched'" in refused.stderr
        tiny.motoko("clean", "--delete", "--constraints", "state != launched")
        (tiny.path / "go").touch()
        assert process.wait(TIMEOUT_S) == 0


ENDLESS_SH = """\
#!/bin/bash
python - <<'END'
import BlackDynamite as BD
run, job = BD.getRunFromScript()
run.start()
run.finish()
END
touch {directory}/busy
while ! test -e {directory}/go; do sleep 0.05; done
"""


def test_a_run_whose_script_goes_on_after_it_has_finished_is_refused(tiny: Tiny) -> None:
    tiny.write(launch=ENDLESS_SH)
    with tiny.started("run", "-n", "a", "--count", "1") as process:
        tiny.wait_for("busy")
        refused = tiny.motoko("clean", code=1)
        assert re.search(r"first\.1 \((FINISHED|FORWARDED), but its job has not ended\)", refused.stderr)
        assert "--constraints 'runs.id != 1" in refused.stderr
        assert directory(tiny, 1).is_dir()
        (tiny.path / "go").touch()
        assert process.wait(TIMEOUT_S) == 0


def test_a_run_with_a_job_is_refused_until_that_has_ended(tiny: Tiny) -> None:
    """In this process, because the database is looked at closely."""
    workflow = Workflow(tiny.path / "motoko.yaml")
    workflow.create(validated=True)
    workflow.run_name = "a"
    manager = workflow.task_managers["first"]
    transact("create", lambda: manager.createTask(x=1) and None)
    directory(tiny, 1).mkdir(parents=True)
    handle = json.dumps({"tag": "motoko-first-1"})

    def change(**entries: Any) -> None:
        transact("the test", lambda: manager.run(1).entries.update(entries))

    def look() -> dict[str, Any]:
        return transact("the test", lambda: dict(manager.run(1).entries))

    for state in ("CREATED", "FINISHED"):  # it was reset while its job was at work, or is over
        change(state=state, motoko_handle=handle)
        words = rf"first\.1 \({state}, but its job has not ended\)"
        with pytest.raises(MotokoError, match=words) as raised:
            clean(manager, [1])
        assert "--constraints 'runs.id != 1'" in str(raised.value)
        with pytest.raises(MotokoError):
            refuse_under_way(manager, [1])
        assert (look()["state"], look()["motoko_handle"]) == (state, handle)
    assert directory(tiny, 1).is_dir()

    record = exit_record_path(directory(tiny, 1), "motoko-first-1")
    record.write_text("started a-machine:bash:1\nended 0\n")  # no launcher has heard of it yet
    assert clean(manager, [1]) == 1
    assert not directory(tiny, 1).exists()
    for state in ("CREATED", "FINISHED"):
        change(state=state, motoko_handle=handle)
        assert clean(manager, [1], force=True) == 1
        assert look()["state"] == "CREATED"
        assert "motoko_handle" not in look()
    lifecycle.disconnect(workflow)


def test_a_run_with_an_odd_state_can_be_looked_at_and_cleaned(tiny: Tiny, capsys: Captured) -> None:
    assert main(["-C", str(tiny.path), "create"]) == 0
    tiny.create_tasks(x=1)
    tiny.change("first.1", state=["odd"], run_path=5)
    assert main(["-C", str(tiny.path), "info", "--verbose"]) == 0
    assert main(["-C", str(tiny.path), "logs", "first.1"]) == 1
    assert call(tiny) == 0
    assert "first: reset 1 run\n" in capsys.readouterr().out
    assert tiny.states()["first"] == ["CREATED"]


def test_force_and_what_an_execution_has_left(tiny: Tiny) -> None:
    """In this process, because the database is looked at closely."""
    workflow = Workflow(tiny.path / "motoko.yaml")
    workflow.create(validated=True)
    workflow.run_name = "a"
    manager = workflow.task_managers["first"]
    transact("create", lambda: manager.createTask(x=1) and None)

    def spoil() -> None:
        run = manager.run(1)
        run.entries.update(
            {"state": "START", "start_time": 1, "motoko_failure": {"reason": "LOST"}, "motoko_handle": {}}
        )
        run.quantities["y"] = 1

    transact("spoil", spoil)
    with pytest.raises(Exception, match=r"first\.1 \(START\)"):
        clean(manager, [1])
    assert clean(manager, [1, 99], force=True) == 1

    def look() -> tuple[dict[str, object], int]:
        run = manager.run(1)
        return dict(run.entries), len(run.quantities)

    entries, quantities = transact("look", look)
    assert entries["state"] == "CREATED"
    assert entries["start_time"] is None
    assert not {"motoko_failure", "motoko_handle"} & entries.keys()
    assert quantities == 0

    assert clean(manager, [1], delete=True) == 1
    assert transact("look", lambda: list(manager.base._get_jobs().entries[1].runs.entries)) == []
    lifecycle.disconnect(workflow)
