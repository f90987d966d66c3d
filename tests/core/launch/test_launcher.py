"""The launcher on a real study, with the bash generator and real processes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from motoko_core.cleaning import clean
from motoko_core.launch import launcher as launcher_module
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, number, set_state
from tests.launching import (
    entries_of,
    failure_of,
    launching,
    read_line,
    release,
    settled,
    stoppable,
)

PYTHON_TASK = """\
python - <<'END'
import BlackDynamite as BD
run, job = BD.getRunFromScript()
run.start()
{end}
END
{after}
"""


def delete_run(workflow: Workflow, reference: str) -> None:
    def work() -> None:
        ((run,),) = workflow.get_runs([reference]).values()
        base = workflow.mult.base
        del base._get_jobs().entries[run.entries["job_id"]].runs.entries[run.entries["id"]]
        del base._get_runs().entries[run.entries["id"]]

    transact("the test", work)


# --------------------------------------------------------------------------- how a run ends


@pytest.mark.parametrize(
    ("script", "state", "failure"),
    [
        ("true", "FINISHED", None),
        ("echo hello; exit 0", "FINISHED", None),
        (
            "echo first >&2; echo wrong >&2; exit 3",
            "FAILED",
            {"reason": "EXIT_CODE", "exit_code": 3, "attempt": 1, "stderr": "first\nwrong\n"},
        ),
        (
            "kill -9 $$",
            "FAILED",
            {"reason": "SIGNAL", "exit_code": -9, "attempt": 1, "stderr": ""},
        ),
    ],
)
async def test_the_exit_code_tells_the_final_state(
    scripts: Workflow, script: str, state: str, failure: dict[str, Any] | None
) -> None:
    async with launching(scripts):
        (run,) = create_tasks(scripts, label=script)
        (entries,) = await settled(scripts, run)
    assert entries["state"] == state
    assert failure_of(entries) == (failure or {})


@pytest.mark.parametrize(
    ("end", "after", "state"),
    [
        ("run.finish()", "exit 4", "FINISHED"),
        ("run.entries['state'] = 'HALFWAY'; import transaction; transaction.commit()", "exit 0", "HALFWAY"),
        ("", "exit 0", "FINISHED"),
    ],
)
async def test_a_state_that_the_script_has_set_stays(
    scripts: Workflow, end: str, after: str, state: str
) -> None:
    async with launching(scripts):
        (run,) = create_tasks(scripts, label=PYTHON_TASK.format(end=end, after=after))
        (entries,) = await settled(scripts, run)
    assert entries["state"] == state
    assert entries["start_time"] is not None
    assert "motoko_failure" not in entries


async def test_a_failure_that_the_script_has_set_is_explained(scripts: Workflow) -> None:
    async with launching(scripts):
        (run,) = create_tasks(
            scripts, label=PYTHON_TASK.format(end="run.fail()", after="echo too bad >&2; exit 2")
        )
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FAILURE"
    assert entries["motoko_failure"]["exit_code"] == 2
    assert "too bad\n" in entries["motoko_failure"]["stderr"]


async def test_parameters_of_a_study_that_have_common_names_are_left_alone(scripts: Workflow) -> None:
    given = {"failure": "ductile", "handle": "steel", "cancel": True, "not_before": 9e9}
    async with launching(scripts):
        (run,) = create_tasks(scripts, label="exit 3", run_params=given)
        (entries,) = await settled(scripts, run)
    assert {name: entries[name] for name in given} == given
    assert (entries["state"], entries["motoko_failure"]["exit_code"]) == ("FAILED", 3)


async def test_a_later_attempt_keeps_its_number(scripts: Workflow) -> None:
    async with launching(scripts):
        (run,) = create_tasks(scripts, label="exit 1")
        await settled(scripts, run)
        set_state(scripts, run, "CREATED", motoko_failure={"reason": "EXIT_CODE", "attempt": 2})
        (entries,) = await settled(scripts, run)
    assert entries["motoko_failure"]["attempt"] == 2


# --------------------------------------------------------------------------- when a run starts


async def test_a_run_starts_when_it_is_committed(scripts: Workflow) -> None:
    # The launcher has nothing to do and looks again in 1000 s: only the feed can wake it.
    async with launching(scripts):
        (first,) = create_tasks(scripts, label="true")
        await settled(scripts, first)
        (second,) = create_tasks(scripts, label="exit 1")
        assert (await settled(scripts, second))[0]["state"] == "FAILED"


async def test_runs_that_were_there_before_the_launcher_start_oldest_first(
    scripts: Workflow, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    runs = create_tasks(scripts, label=f"echo mult.$BLACKDYNAMITE_RUN_ID >> {log}", n=[3, 1, 2])
    async with launching(scripts, slots=1):
        await settled(scripts, *runs)
    assert log.read_text().split() == runs


async def test_runs_execute_side_by_side(scripts: Workflow, fifo: Path) -> None:
    # Neither of them ends before the other one has started.
    async with launching(scripts, slots=2):
        (writer,) = create_tasks(scripts, label=f"echo hello > {fifo}")
        (reader,) = create_tasks(scripts, label=f"read line < {fifo}; test $line = hello")
        ends = await settled(scripts, writer, reader)
    assert [entries["state"] for entries in ends] == ["FINISHED", "FINISHED"]


async def test_nproc_counts(scripts: Workflow, tmp_path: Path, fifo: Path) -> None:
    log = tmp_path / "log"
    async with launching(scripts, slots=2):
        (wide,) = create_tasks(
            scripts, label=f"echo wide > {fifo}; read < {fifo}; echo end >> {log}", run_params={"nproc": 2}
        )
        await read_line(fifo)
        (narrow,) = create_tasks(scripts, label=f"echo narrow >> {log}")
        (other,) = create_tasks(scripts, study="add", label=f"echo narrow >> {log}")
        # Claimed or not, neither may start before the wide one ends.
        await release(fifo)
        await settled(scripts, wide, narrow, other)
    assert log.read_text().split() == ["end", "narrow", "narrow"]


async def test_a_run_of_another_machine_is_left_alone(scripts: Workflow) -> None:
    async with launching(scripts):
        (foreign,) = create_tasks(scripts, label="true", run_params={"machine_name": "elsewhere"})
        (here,) = create_tasks(scripts, label="true", run_params={"machine_name": socket.gethostname()})
        (other,) = create_tasks(scripts, label="true", n=2)
        await settled(scripts, here, other)
        assert entries_of(scripts, foreign)["state"] == "CREATED"
        # Given to this machine later, it is launched.
        set_state(scripts, foreign, "CREATED", machine_name="localhost")
        await settled(scripts, foreign)


async def test_a_run_is_not_launched_before_its_time(scripts: Workflow) -> None:
    now = 1000.0
    (later,) = create_tasks(scripts, label="true")
    set_state(scripts, later, "CREATED", motoko_not_before=2000.0)
    async with launching(scripts, wall_clock=lambda: now):
        (run,) = create_tasks(scripts, label="true", n=1)
        await settled(scripts, run)
        assert entries_of(scripts, later)["state"] == "CREATED"
        now = 2000.0
        (run,) = create_tasks(scripts, label="true", n=2)
        (entries, _) = await settled(scripts, later, run)
    assert entries["state"] == "FINISHED"
    assert "motoko_not_before" not in entries


async def test_the_launcher_wakes_up_by_itself_for_a_run_whose_time_comes(scripts: Workflow) -> None:
    clock = asyncio.get_running_loop().time
    async with launching(scripts, wall_clock=clock):
        (run,) = create_tasks(scripts, label="true", run_params={"motoko_not_before": clock() + 0.2})
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"


async def test_one_launcher_serves_two_studies(scripts: Workflow) -> None:
    async with launching(scripts, slots=1):
        runs = [
            *create_tasks(scripts, label="true", n=list(range(5))),
            *create_tasks(scripts, study="add", label="true", n=list(range(5))),
        ]
        ends = await settled(scripts, *runs)
    assert {entries["state"] for entries in ends} == {"FINISHED"}


async def test_one_study_does_not_take_every_processor(
    scripts: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is at this moment, no study is taken for one whose server is silent.
    monkeypatch.setattr(launcher_module, "_PATIENCE_S", TIMEOUT_S)
    log = tmp_path / "log"
    many = create_tasks(scripts, label=f"echo mult >> {log}", n=list(range(6)))
    few = create_tasks(scripts, study="add", label=f"echo add >> {log}", n=[1, 2])
    async with launching(scripts, slots=1):
        await settled(scripts, *many, *few)
    assert log.read_text().split()[:4] == ["mult", "add", "mult", "add"]


async def test_200_runs_are_executed_once_each(scripts: Workflow, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with launching(scripts, slots=4):
        runs = create_tasks(scripts, label=f"echo mult.$BLACKDYNAMITE_RUN_ID >> {log}", n=list(range(200)))
        ends = await settled(scripts, *runs)
    assert {entries["state"] for entries in ends} == {"FINISHED"}
    assert sorted(log.read_text().split()) == sorted(runs)
    assert len(runs) == 200


# --------------------------------------------------------------------------- what cannot be launched


async def test_what_cannot_be_launched_fails_alone(scripts: Workflow, launch_directory: Path) -> None:
    unwritable, no_script, no_job, other, odd, good = create_tasks(scripts, label="true", n=list(range(6)))
    blocked = launch_directory / "mult" / "BD-mult-runs" / f"run-{unwritable.rpartition('.')[2]}"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file where the run directory has to be")
    set_state(scripts, no_script, "CREATED", exec=None)
    set_state(scripts, no_job, "CREATED", job_id=987654)
    set_state(scripts, other, "CREATED", job_id="no number")
    set_state(scripts, odd, "CREATED", nproc="many")
    async with launching(scripts):
        bad = await settled(scripts, unwritable, no_script, no_job, other, odd)
        (fine,) = await settled(scripts, good)
    blocked.unlink()
    told = ["File exists", "no script", "987654", "TypeError", "'many'"]
    for entries, words in zip(bad, told, strict=True):
        assert entries["state"] == "FAILED"
        assert entries["motoko_failure"]["reason"] == "SUBMIT"
        assert entries["motoko_failure"]["exit_code"] is None
        assert words in entries["motoko_failure"]["stderr"]
    assert fine["state"] == "FINISHED"


async def test_a_variable_without_a_value_fails_the_run_with_its_name(
    scripts: Workflow, launch_directory: Path
) -> None:
    script = launch_directory / "mult" / "launch.sh"
    usual = script.read_text()
    script.write_text("echo __BLACKDYNAMITE__start_time__")
    (run,) = create_tasks(scripts, n=1)
    script.write_text(usual)
    async with launching(scripts):
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "SUBMIT")
    assert "the run parameter 'start_time' is not set" in entries["motoko_failure"]["stderr"]


# --------------------------------------------------------------------------- changed while it runs


async def test_a_run_that_is_deleted_while_it_runs_is_forgotten(scripts: Workflow, fifo: Path) -> None:
    async with launching(scripts, slots=1):
        (doomed,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
        await read_line(fifo)
        delete_run(scripts, doomed)
        await release(fifo)
        (other,) = create_tasks(scripts, label="true", n=2)
        assert (await settled(scripts, other))[0]["state"] == "FINISHED"
    assert entries_of(scripts, doomed) == {}


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_run_that_is_reset_while_it_runs_is_stopped_and_starts_again(
    scripts: Workflow, fifo: Path, tmp_path: Path, slots: int
) -> None:
    async with launching(scripts, slots=slots):
        (run,) = create_tasks(scripts, label=stoppable(tmp_path, fifo))
        await read_line(fifo)
        set_state(scripts, run, "CREATED")
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
    assert "motoko_failure" not in entries
    assert (tmp_path / "log").read_text().split() == ["start", "end", "start"]


async def test_a_run_that_is_cleaned_by_force_is_stopped_and_starts_again(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    async with launching(scripts, slots=2):
        (run,) = create_tasks(scripts, label=stoppable(tmp_path, fifo))
        await read_line(fifo)
        await asyncio.to_thread(clean, scripts.mult, [number(run)], force=True)
        (entries,) = await settled(scripts, run)
    assert entries["state"] == "FINISHED"
    assert (tmp_path / "log").read_text().split() == ["start", "end", "start"]


# --------------------------------------------------------------------------- stopping


async def test_jobs_go_on_when_the_launcher_stops_and_the_next_one_follows_them(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    script = f"echo >> {tmp_path}/log; echo > {fifo}; read < {fifo}; exit 5"
    async with launching(scripts, keep_jobs=True):
        (run,) = create_tasks(scripts, label=script)
        await read_line(fifo)
    assert entries_of(scripts, run)["state"] == "launched"
    async with launching(scripts):
        await release(fifo)
        (entries,) = await settled(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["exit_code"]) == ("FAILED", 5)
    assert len((tmp_path / "log").read_text()) == 1


async def test_jobs_are_stopped_with_the_launcher_and_start_again_with_the_next_one(
    scripts: Workflow, fifo: Path, tmp_path: Path
) -> None:
    script = f"echo >> {tmp_path}/log; echo > {fifo}; read < {fifo}"
    async with launching(scripts, keep_jobs=False):
        (run,) = create_tasks(scripts, label=script)
        await read_line(fifo)
    entries = entries_of(scripts, run)
    assert entries["state"] == "CREATED"
    assert "motoko_handle" not in entries
    async with launching(scripts):
        await read_line(fifo)
        await release(fifo)
        assert (await settled(scripts, run))[0]["state"] == "FINISHED"
    assert len((tmp_path / "log").read_text()) == 2
