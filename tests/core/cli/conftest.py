"""A tiny workflow of two studies whose tasks are plain scripts, and the motoko command as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from motoko_core import lifecycle
from motoko_core.cli.main import main
from motoko_core.daemons import wait_until
from motoko_core.session import transact
from motoko_core.workflow import Workflow

TIMEOUT_S = 60.0

MOTOKO_YAML = """\
task_managers:
  first:
  second:
orchestrator: orchestrator.main
poll_interval: 0.05
"""
ORCHESTRATOR = """\
def populate_arg_parser(parser):
    parser.add_argument("--count", type=int, default=2, help="how many tasks")
    parser.add_argument("--some_text")

async def forward(workflow, runs, **params):
    for run, job in runs:
        workflow.second.createTask(x=10 * job.x)
        run.state = "FORWARDED"

def all_there(workflow, task_manager):
    return len(workflow.second.select("state = FINISHED")) >= workflow.params["count"]

async def finish(workflow, **params):
    print("the end of", params["run_name"])
    workflow.finished = True

async def main(workflow, count, some_text="nothing", **params):
    print("text:", some_text)
    workflow.first.createTask(x=list(range(count)))
    workflow.add_action("forward", task="first", event="state = FINISHED", f=forward)
    workflow.add_action("finish", task="second", event=all_there, f=finish)
"""
LAUNCH_SH = "#!/bin/bash\necho __BLACKDYNAMITE__x__ > x.txt\n"
#: A task that says that it is there, and stays until it is told to go.
BUSY_SH = "#!/bin/bash\ntouch {directory}/busy\nwhile [ ! -e {directory}/go ]; do sleep 0.05; done\n"


@attrs.frozen
class Tiny:
    """A workflow directory, and motoko on it."""

    path: Path

    def motoko(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Call motoko in the directory; ``code`` is the exit code that is expected, None for any."""
        result = subprocess.run(
            command(*words), cwd=self.path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert code is None or result.returncode == code, result.stdout + result.stderr
        return result

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Motoko at work; what is left of it is killed at the end."""
        process = subprocess.Popen(
            command(*words), cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=TIMEOUT_S)

    def write(self, **files: str) -> None:
        """Write files; ``orchestrator`` is orchestrator.py, ``launch`` every study's launch.sh."""
        names = {"orchestrator": "orchestrator.py", "yaml": "motoko.yaml"}
        for name, text in files.items():
            if name == "launch":
                for study in ("first", "second"):
                    (self.path / study / "launch.sh").write_text(text.replace("{directory}", str(self.path)))
            else:
                (self.path / names[name]).write_text(text)

    def wait_for_launcher(self, process: subprocess.Popen[str]) -> None:
        """Wait until a launcher in a terminal can be stopped: it has its locks, and listens to signals."""
        assert process.stdout is not None
        while "the launcher serves" not in process.stdout.readline():
            assert process.poll() is None

    def wait_for(self, name: str) -> None:
        """Wait for a file in the directory."""
        assert wait_until((self.path / name).exists, TIMEOUT_S), name

    def create_tasks(self, study: str = "first", run_name: str = "a", **parameters: Any) -> list[str]:
        """Create tasks in studies that exist; answer their references."""
        workflow = Workflow(self.path / "motoko.yaml")
        workflow.run_name = run_name
        manager = workflow.task_managers[study]

        def work() -> list[str]:
            return [f"{study}.{run.id}" for run, _ in manager.createTask(**parameters)]

        with lifecycle.running_servers(workflow, [manager]):
            return transact("the test", work)

    def change(self, reference: str, **entries: Any) -> None:
        """Change entries of a run, as a launcher or a script does."""
        workflow = Workflow(self.path / "motoko.yaml")
        study, _, number = reference.partition(".")
        manager = workflow.task_managers[study]

        def work() -> None:
            manager.base._get_runs().entries[int(number)].entries.update(entries)

        with lifecycle.running_servers(workflow, [manager]):
            transact("the test", work)

    def states(self) -> dict[str, list[str]]:
        """Study -> its runs' states, by id."""
        workflow = Workflow(self.path / "motoko.yaml")
        with lifecycle.running_servers(workflow):
            found = {}
            for name, manager in workflow.task_managers.items():
                rows = manager.database.index.rows
                found[name] = [str(rows[run_id]["state"]) for run_id in sorted(rows)]
            return found

    def processes(self) -> list[str]:
        """Command lines of processes that belong to the workflow."""
        import psutil

        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(self.path) in line and process.pid != os.getpid():
                found.append(line)
        return found


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "motoko_core.cli.main", *words]


@pytest.fixture
def tiny() -> Iterator[Tiny]:
    """The workflow; whatever runs for it at the end is stopped."""
    # pytest's own directories have long names, and sockets would have to move elsewhere.
    path = Path(tempfile.mkdtemp(prefix="mtk-")).resolve()
    workflow = Tiny(path)
    for study in ("first", "second"):
        (path / study).mkdir()
        (path / study / "bd.yaml").write_text(f"study: {study}\njob:\n  x: int\n")
        (path / study / "doIt.py").write_text("")
    workflow.write(yaml=MOTOKO_YAML, orchestrator=ORCHESTRATOR, launch=LAUNCH_SH)
    yield workflow
    workflow.write(yaml=MOTOKO_YAML)
    main(["-C", str(path), "kill", "--aggressive", "--bd-study", "first"])
    main(["-C", str(path), "kill"])
    shutil.rmtree(path)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory is an empty one, with no workflow above it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
