"""Other processes for the tests: what a script, a task or BlackDynamite's own tools do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from motoko_core.daemons import is_gone, wait_until
from motoko_core.study.database import Database
from motoko_core.study.server import Server

ROOT = Path(__file__).parents[1]


def run_python(script: str, *arguments: object, cwd: Path | str | None = None) -> str:
    """Run a script in a process of its own; answer what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLACKDYNAMITE")}
    environment["PYTHONPATH"] = str(ROOT)
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def runzeo(database: Database) -> psutil.Process:
    """The server process of a database, below its zdaemon."""
    processes = database.server.daemon.processes()
    (server,) = (p for p in processes if any(Path(w).name == "runzeo" for w in p.cmdline()[1:2]))
    return server


def is_over(pid: int) -> bool:
    """Whether no process has this id, or one that its parent has not buried yet."""
    try:
        return is_gone(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended, and its parent has not buried it."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_server(server: Server) -> None:
    """Kill a server so that nobody starts it again."""

    def is_done() -> bool:
        # zdaemon may have started another one before it was killed itself.
        found = server.daemon.processes()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not found

    assert server.daemon.processes()
    assert wait_until(is_done, 30)
