"""What the launcher leaves with a run: directory, files, environment, entries. And single transactions."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import BlackDynamite
import pytest

from motoko_core import lifecycle
from motoko_core.interfaces import Ended
from motoko_core.launch import records
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.launching import entries_of, launching, settled

LAUNCH = """\
env | grep ^BLACKDYNAMITE_ | sort
cat settings.ini
echo warning >&2
"""
SETTINGS = """\
x = __BLACKDYNAMITE__x__
machine = __BLACKDYNAMITE__machine_name__
run = __BLACKDYNAMITE__run_id__ of __BLACKDYNAMITE__study__ in __BLACKDYNAMITE__run_path__
other = __BLACKDYNAMITE__unknown__
"""


@pytest.fixture
def configured(make_workflow: Callable[..., Workflow]) -> Iterator[Workflow]:
    """A workflow whose study has a configuration file with variables."""
    workflow = make_workflow(launch=LAUNCH, studies=("mult", "add"))
    study = Path(workflow.mult.study_dir)
    (study / "settings.ini").write_text(SETTINGS)
    (study / "bd.yaml").write_text((study / "bd.yaml").read_text() + "config_files: [settings.ini]\n")
    workflow = Workflow(workflow.config_path)
    workflow.create(validated=True)
    workflow.run_name = "w/1"
    yield workflow
    lifecycle.disconnect(workflow)


def intents(tags: dict[int, str]) -> dict[int, tuple[str, dict[str, object]]]:
    return {number: (tag, {"job": "7"}) for number, tag in tags.items()}


async def test_a_run_gets_its_directory_its_files_and_its_environment(configured: Workflow) -> None:
    async with launching(configured):
        (run,) = create_tasks(configured, x=2.5)
        (entries,) = await settled(configured, run)
    directory = Path(configured.mult.study_dir) / "BD-mult-runs" / "run-1"
    assert entries["run_path"] == str(directory)
    assert entries["blackdynamite_version"] == BlackDynamite.__version__
    assert os.access(directory / "launch.sh", os.X_OK)
    assert {path.name for path in directory.iterdir()} >= {"launch.sh", "doIt.py", "settings.ini"}
    schema = f"{getpass.getuser()}_mult"
    assert (directory / "w_1.o1").read_text().splitlines() == [
        f"BLACKDYNAMITE_HOST=zeo://{configured.mult.study_dir}",
        "BLACKDYNAMITE_RUN_ID=1",
        f"BLACKDYNAMITE_SCHEMA={schema}",
        f"BLACKDYNAMITE_STUDY={schema}",
        f"BLACKDYNAMITE_USER={getpass.getuser()}",
        "x = 2.5",
        "machine = localhost",
        f"run = 1 of {schema} in {directory}",
        "other = __BLACKDYNAMITE__unknown__",
    ]
    assert (directory / "w_1.e1").read_text() == "warning\n"

    # BlackDynamite shows the run with the distributions that it was executed with.
    shown = await asyncio.to_thread(
        subprocess.run,
        [shutil.which("canYouDigIt") or "canYouDigIt", "runs", "info", "--run_id", "1"],
        cwd=configured.mult.study_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert shown.returncode == 0, shown.stderr
    assert "state: FINISHED" in shown.stdout
    assert f"pytest=={pytest.__version__}" in shown.stdout
    assert "file #" in shown.stdout


# --------------------------------------------------------------------------- single transactions


def run_id(reference: str) -> int:
    return int(reference.rpartition(".")[2])


@pytest.fixture
def claimed(scripts: Workflow) -> tuple[str, str]:
    """A run that is claimed, and its tag."""
    (run,) = create_tasks(scripts, label="true")
    tags = records.new_tags(scripts.mult, [run_id(run)])
    assert transact("claim", lambda: records.claim(scripts.mult, tags)) == [run_id(run)]
    return run, tags[run_id(run)]


def test_tags_are_new_for_each_execution(scripts: Workflow) -> None:
    tags = [records.new_tags(scripts.mult, [3])[3] for _ in range(2)]
    assert tags[0] != tags[1]
    assert all(tag.startswith("motoko-mult-3-") for tag in tags)


def test_only_one_claim_gets_a_run(scripts: Workflow, claimed: tuple[str, str]) -> None:
    run, _ = claimed
    other = records.new_tags(scripts.mult, [run_id(run), 10**6])
    assert transact("claim", lambda: records.claim(scripts.mult, other)) == []


# A connection that is lost while a commit is under way leaves open what became of it.
def test_each_step_may_be_done_twice(scripts: Workflow, claimed: tuple[str, str]) -> None:
    run, tag = claimed
    manager, number = scripts.mult, run_id(run)
    tags = {number: tag}
    assert transact("claim", lambda: records.claim(manager, tags)) == [number]
    for _ in range(2):
        assert transact("launched", lambda: records.launched(manager, intents(tags), "launched")) == [number]
    for _ in range(2):
        transact("submitted", lambda: records.submitted(manager, {number: (tag, {"pid": 5})}))
    assert entries_of(scripts, run)["handle"] == {"tag": tag, "generator": "", "data": {"pid": 5}}
    end = Ended(tag=tag, exit_code=3)
    for _ in range(2):
        transact("settle", lambda: records.settle(manager, {number: (end, "oh")}))
    assert entries_of(scripts, run)["state"] == "FAILED"
    for _ in range(2):
        transact("hand back", lambda: records.hand_back(manager, tags))
    assert entries_of(scripts, run)["state"] == "FAILED"


def test_what_was_written_under_another_tag_is_not_touched(
    scripts: Workflow, claimed: tuple[str, str]
) -> None:
    run, tag = claimed
    manager, number, old = scripts.mult, run_id(run), "an earlier execution"
    before = entries_of(scripts, run)
    assert transact("launched", lambda: records.launched(manager, intents({number: old}), "launched")) == []
    transact("submitted", lambda: records.submitted(manager, {number: (old, {"pid": 5})}))
    transact("settle", lambda: records.settle(manager, {number: (Ended(tag=old, exit_code=1), "")}))
    transact("hand back", lambda: records.hand_back(manager, {number: old}))
    assert entries_of(scripts, run) == before
    assert before["handle"]["tag"] == tag


def test_a_run_whose_state_moved_on_is_not_launched(scripts: Workflow, claimed: tuple[str, str]) -> None:
    run, tag = claimed
    set_state(scripts, run, "GIVEN UP")
    launched = transact(
        "launched", lambda: records.launched(scripts.mult, {run_id(run): (tag, {})}, "launched")
    )
    assert launched == []


def test_a_run_that_ended_by_itself_is_not_handed_back(scripts: Workflow, claimed: tuple[str, str]) -> None:
    run, tag = claimed
    set_state(scripts, run, "FINISHED")
    transact("hand back", lambda: records.hand_back(scripts.mult, {run_id(run): tag}))
    assert entries_of(scripts, run)["state"] == "FINISHED"
    assert "handle" not in entries_of(scripts, run)
