"""Takes a cluster down when the test process that started it ends, however it ends.

It runs as a process of its own, ``python -m tests.clusters.reaper DIRECTORY``. Its standard input is a pipe
from the test process, which ends with it. Then everything that belongs to the cluster is killed, jobs too,
and its directory removed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def place_of(directory: Path, name: str) -> Path:
    """The working directory of a daemon, by which it is known; what it starts is there too.

    The environment would not do: slurmstepd, which holds a job, writes its title over it.
    """
    return directory / "daemons" / name


def processes_of(directory: Path, node: str | None = None) -> list[psutil.Process]:
    """The daemons of a cluster, or of one of its nodes, and the jobs there."""
    found = []
    for process in psutil.process_iter():
        try:
            place, environment = Path(process.cwd()), process.environ()
        except (psutil.Error, OSError):
            continue
        # A job has the environment of the one who submitted it, and what SLURM adds.
        is_job = "SLURM_JOB_ID" in environment and environment.get("SLURM_CONF") == f"{directory}/slurm.conf"
        where = environment.get("SLURMD_NODENAME") if is_job else place.name
        if (is_job or place == place_of(directory, place.name)) and node in (None, where):
            found.append(process)
            with contextlib.suppress(psutil.Error):
                # A job may have thrown its environment away.
                found += process.children(recursive=True) if process.name() == "slurmstepd" else []
    return found


def kill_all(find: Callable[[], Iterable[psutil.Process]]) -> None:
    """Kill what is found, until nothing is; parents first, who else would tell of the ends of the others."""
    while found := [process for process in find() if _is_alive(process)]:
        for process in sorted(found, key=psutil.Process.create_time):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    """Whether it is there, and not merely waiting for its parent."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start(directory: Path) -> subprocess.Popen[bytes]:
    """Have a directory, and a cluster in it, go with this process."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def stop(reaper: subprocess.Popen[bytes]) -> None:
    """Have the cluster taken down now."""
    assert reaper.stdin is not None
    reaper.stdin.close()
    reaper.wait(60)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_all(lambda: processes_of(Path(sys.argv[1])))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
