"""What the launcher leaves with a run that it has executed: directory, files, environment, entries."""

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
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks
from tests.launching import launching, settled

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
