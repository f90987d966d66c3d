"""BlackDynamite's own tools and Motoko work on the same databases, in both directions."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction

from motoko_core import lifecycle
from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import create_tasks, orchestrate, set_state, stop_everything, write_workflow
from tests.launching import launching, settled
from tests.processes import run_python
from tests.reading import read_both_ways

BD_YAML = """\
study: mult
job:
  x: float
run:
  note: str
job_space:
  x: [1.0, 2.0]
exec_file: launch.sh
config_files:
  - doIt.py
machine_name: localhost
nproc: 1
"""


def can_you_dig_it(study: Path, *words: str) -> str:
    done = subprocess.run(
        [shutil.which("canYouDigIt") or "canYouDigIt", *words],
        cwd=study,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("BLACKDYNAMITE")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    yaml = "task_managers:\n  mult:\norchestrator: orchestrator.main\npoll_interval: 0.05\n"
    write_workflow(directory, studies=("mult",), yaml=yaml)
    (directory / "mult" / "bd.yaml").write_text(BD_YAML)
    yield directory
    workflow = Workflow(directory / "motoko.yaml")
    stop_everything(workflow)
    shutil.rmtree(directory)


@pytest.fixture
def created(directory: Path) -> Iterator[Workflow]:
    workflow = Workflow(directory / "motoko.yaml")
    workflow.create(validated=True)
    workflow.run_name = "w"
    yield workflow
    transaction.abort()
    lifecycle.disconnect(workflow)


async def test_blackdynamite_shows_motokos_runs(created: Workflow) -> None:
    study = Path(created.mult.study_dir)
    async with launching(created, studies=["mult"]):
        runs = create_tasks(created, x=[1.5, 2.5], run_params={"note": "mine"})
        await settled(created, *runs)
    show = asyncio.to_thread
    table = await show(can_you_dig_it, study, "runs", "info")
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if "| w " in line]
    assert [row[1:7] for row in rows] == [
        ["w", "1", "1", "FINISHED", "1", "localhost"],
        ["w", "2", "2", "FINISHED", "1", "localhost"],
    ]
    assert "note: mine" in await show(can_you_dig_it, study, "runs", "info", "--run_id", "2")
    jobs = await show(can_you_dig_it, study, "jobs", "info")
    assert "1.5" in jobs
    assert "2.5" in jobs
    info = await show(can_you_dig_it, study, "info")
    assert "FINISHED" in info
    summary = await show(can_you_dig_it, study, "runs", "info", "--summary")
    assert "FINISHED =>     2 (100.0%)" in " ".join(summary.split(" ")) or "100.0%" in summary
    selected = await show(can_you_dig_it, study, "runs", "info", "--constraints", "runs.id = 2")
    assert "| w " in selected
    status = await show(can_you_dig_it, study, "server", "status")
    assert "running" in status.lower()


async def test_an_update_by_blackdynamite_fires_an_action(created: Workflow) -> None:
    (run,) = create_tasks(created, x=1.0)
    set_state(created, run, "FINISHED")
    fired: list[tuple[int, str]] = []

    async def checked(runs, workflow):  # type: ignore[no-untyped-def]
        fired.extend((r.id, r.state) for r, _ in runs)
        workflow.finished = True

    update = None

    async def main(workflow, **params):  # type: ignore[no-untyped-def]
        nonlocal update
        workflow.add_action("checked", task="mult", event="state = CHECKED", f=checked)
        words = ("runs", "update", "--truerun", "--run_id", "1", "state=CHECKED")
        update = asyncio.create_task(asyncio.to_thread(can_you_dig_it, Path(workflow.mult.study_dir), *words))

    created.wait_forever = True
    await orchestrate(created, main)
    assert update is not None
    await update
    assert fired == [(1, "CHECKED")]


async def test_runs_that_blackdynamite_creates_are_launched_and_seen(created: Workflow) -> None:
    study = Path(created.mult.study_dir)
    await asyncio.to_thread(can_you_dig_it, study, "jobs", "create")
    async with launching(created, studies=["mult"]):
        # The launcher is told of runs that come from elsewhere.
        await asyncio.to_thread(can_you_dig_it, study, "runs", "create", "--run_name", "w")
        ends = await settled(created, "mult.1", "mult.2")
    assert [entries["state"] for entries in ends] == ["FINISHED", "FINISHED"]
    assert len(created.mult.select("state = FINISHED")) == 2
    assert [job.x for _, job in created.mult.select()] == [1.0, 2.0]
    # A job that is there is not created again.
    create_tasks(created, x=[1.0, 3.0])
    assert sorted(created.mult.base.jobs.keys()) == [1, 2, 3]


async def test_a_study_that_blackdynamite_made_is_read_and_goes_on(directory: Path) -> None:
    study = directory / "mult"
    # Everything by BlackDynamite: the server, the schema, the jobs, the runs, their ends and results.
    for words in (["init"], ["jobs", "create"], ["runs", "create", "--run_name", "old"]):
        await asyncio.to_thread(can_you_dig_it, study, *words)
    script = """
        import os
        import BlackDynamite as BD

        os.makedirs("BD-mult-runs/run-1", exist_ok=True)
        base = BD.Base(**BD.BDParser().parseBDParameters(argv=[]))
        run = base.runs[1]
        run["run_path"] = os.path.realpath("BD-mult-runs/run-1")
        run.start()
        run.y = [1, 2]
        run.pushQuantity(4.5, 0, "result")
        run.finish()
    """
    await asyncio.to_thread(run_python, script, cwd=study)
    found = read_both_ways(study)
    assert [(run_id, entries["state"]) for run_id, entries, *_ in found] == [(1, "FINISHED"), (2, "CREATED")]
    assert found[0][2]["y"] == [1, 2]
    assert found[0][3] == {"result": str(study / "BD-mult-runs/run-1/result.csv")}

    workflow = Workflow(directory / "motoko.yaml")
    assert lifecycle.create_missing(workflow) == []
    workflow.run_name = "old"
    ((run, job),) = workflow.mult.select("state = FINISHED")
    assert (run.id, job.x, run.y) == (1, 1.0, [1, 2])
    assert run.getQuantity("result").iloc[0, 1] == 4.5
    assert len(workflow.mult.select()) == 2
    frame = workflow.mult.select().to_dataframe()
    assert frame["result"].tolist()[0] == 4.5
    assert "t" not in frame
    launcher = Launcher({workflow.mult: Service(generator=BashGenerator())})
    assert launcher.managers == [workflow.mult]
    async with launching(workflow, studies=["mult"]):
        (other,) = await settled(workflow, "mult.2")
        (new,) = create_tasks(workflow, x=7.0)
        await settled(workflow, new)
    assert other["state"] == "FINISHED"
    assert sorted(workflow.mult.base.jobs.keys()) == [1, 2, 3]
    transaction.abort()
    lifecycle.disconnect(workflow)
    await asyncio.to_thread(can_you_dig_it, study, "server", "status")
