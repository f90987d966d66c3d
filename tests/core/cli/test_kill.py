"""``motoko kill`` leaves no process behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from motoko_core import locks
from motoko_core.cli.main import main
from motoko_core.cli.remains import Remains
from motoko_core.daemons import is_gone, wait_until
from motoko_core.exit_record import TAG_VARIABLE
from motoko_core.launch.stopping import stop_local
from motoko_core.workflow import Workflow
from tests.clusters.slurm import SlurmCluster
from tests.core.cli.conftest import MOTOKO_YAML, TIMEOUT_S, Tiny

Captured = pytest.CaptureFixture[str]

#: A job with a child in a session of its own, which no signal to the job's group reaches.
LAUNCH = """\
#!/bin/bash
setsid sleep 1000 &
touch {directory}/busy
while [ ! -e {directory}/go ]; do sleep 0.05; done
"""


def call(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), *words])


@pytest.fixture
def busy(tiny: Tiny, capsys: Captured) -> Tiny:
    """A task under way, first.1, and its launcher in the background."""
    tiny.write(launch=LAUNCH)
    assert call(tiny, "create") == 0
    tiny.create_tasks(x=1)
    assert call(tiny, "launcher") == 0
    tiny.wait_for("busy")
    capsys.readouterr()
    return tiny


def processes(tiny: Tiny) -> list[str]:
    """All that has to do with the workflow, by command line, directory or environment: the command lines.

    A process may end while it is looked at (a job's script calls others).
    """
    found: dict[psutil.Process, str] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            words = [line, process.cwd(), *process.environ().values()]
            if process.pid == os.getpid() or not any(str(tiny.path) in word for word in words):
                continue
            found[process] = line
            above = {parent: " ".join(parent.cmdline()) for parent in process.parents()}
            found |= {parent: line for parent, line in above.items() if "_spawner.py" in line}
    return [line for process, line in found.items() if not is_gone(process)]


def launcher(tiny: Tiny) -> psutil.Process:
    pid = locks.holder(tiny.path / "first" / ".bd" / "launcher.lock")
    assert pid
    return psutil.Process(pid)


def test_jobs_are_stopped_and_their_runs_wait(busy: Tiny, capsys: Captured) -> None:
    spawners = [p for p in launcher(busy).children() if "_spawner.py" in " ".join(p.cmdline())]
    assert spawners
    assert call(busy, "kill") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "stopped 1 job; its run waits for the next launcher" in lines
    assert "stopped the launcher" in lines
    assert processes(busy) == []
    assert all(map(is_gone, spawners))
    assert busy.states()["first"] == ["CREATED"]
    assert call(busy, "kill") == 0
    assert capsys.readouterr().out == "nothing was running\n"


def test_jobs_can_be_kept(busy: Tiny, capsys: Captured) -> None:
    assert call(busy, "kill", "--keep_jobs") == 0
    assert "1 job of bash goes on; the next launcher follows it" in capsys.readouterr().out
    names = processes(busy)
    assert [name for name in names if "launch.sh" in name]
    assert not [name for name in names if "runzeo" in name or "motoko_core" in name]
    (busy.path / "go").touch()
    assert call(busy, "launcher") == 0
    assert busy.motoko("logs", "first.1", "--follow").stderr == "first.1 is FINISHED\n"


def test_a_launcher_and_its_manager_that_were_killed_leave_nothing_either(
    busy: Tiny, capsys: Captured
) -> None:
    process = launcher(busy)
    manager = process.parent()
    assert manager is not None
    for each in (manager, process):
        each.send_signal(signal.SIGKILL)
    assert wait_until(lambda: is_gone(process) and is_gone(manager), TIMEOUT_S)
    assert call(busy, "kill") == 0
    assert "stopped 1 job; its run waits" in capsys.readouterr().out
    assert processes(busy) == []
    assert busy.states()["first"] == ["CREATED"]


def test_a_launcher_without_its_manager_is_found_by_its_lock(busy: Tiny, capsys: Captured) -> None:
    process = launcher(busy)
    manager = process.parent()
    assert manager is not None
    manager.kill()
    assert wait_until(lambda: is_gone(manager), TIMEOUT_S)
    assert call(busy, "kill") == 0
    assert f"stopped a launcher (process {process.pid})" in capsys.readouterr().out
    assert processes(busy) == []


def test_the_job_of_a_run_that_was_deleted_is_ended_too(busy: Tiny) -> None:
    assert call(busy, "launcher", "stop") == 0
    assert call(busy, "clean", "--delete", "--force") == 0
    assert processes(busy)
    assert call(busy, "kill") == 0
    assert processes(busy) == []


def test_one_study_keeps_the_jobs_of_another(busy: Tiny) -> None:
    assert call(busy, "launcher", "stop") == 0
    assert call(busy, "kill", "--bd-study", "second") == 0
    assert busy.states()["first"] == ["launched"]
    assert [line for line in processes(busy) if "launch.sh" in line]
    assert call(busy, "kill", "--bd-study", "first") == 0
    assert not [line for line in processes(busy) if "/.wf/" not in line]


def test_reset_stops_jobs_and_cannot_keep_them(busy: Tiny, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        call(busy, "kill", "--reset", "--keep-jobs")
    assert call(busy, "kill", "--reset") == 0
    assert "stopped 1 job\n" in capsys.readouterr().out
    assert processes(busy) == []


def test_a_study_out_of_reach_keeps_no_other_study_s_jobs(busy: Tiny) -> None:
    assert call(busy, "launcher", "stop") == 0
    busy.create_tasks("second", x=1)
    busy.change(
        "second.1", state="launched", motoko_handle='{"tag": "motoko-second-1-0", "generator": "bash"}'
    )
    workflow = Workflow(busy.path / "motoko.yaml")
    first, second = workflow.task_managers.values()
    second.launcher_lock.unlink(missing_ok=True)
    second.launcher_lock.mkdir()
    stopped = stop_local(workflow, [second, first])
    assert stopped.count == 1
    (trouble,) = stopped.troubles
    assert "the jobs of second are left alone" in trouble
    assert str(second.launcher_lock) in trouble
    second.launcher_lock.rmdir()
    assert call(busy, "kill") == 0
    assert processes(busy) == []


@pytest.mark.parametrize("coat", ["", "import this is no module"])
def test_a_coat_of_the_user_keeps_no_job_of_bash(busy: Tiny, coat: str, capsys: Captured) -> None:
    """The launcher was told another generator than motoko.yaml's."""
    assert call(busy, "launcher", "stop") == 0
    (busy.path / "myCoat.py").write_text(coat)
    busy.write(yaml=MOTOKO_YAML + "generator: my\n")
    capsys.readouterr()
    assert call(busy, "kill") == 0
    assert "stopped 1 job;" in capsys.readouterr().out
    assert processes(busy) == []


def test_jobs_of_a_scheduler_are_left_alone_until_they_are_cancelled(
    slurm_cluster: SlurmCluster, tiny: Tiny, capsys: Captured
) -> None:
    tiny.write(yaml=MOTOKO_YAML.replace("first:", "first: {generator: slurm}"), launch=LAUNCH)
    assert call(tiny, "create") == 0
    tiny.create_tasks(x=[1, 2])
    assert call(tiny, "launcher") == 0
    slurm_cluster.wait_for_jobs(lambda jobs: [state for _, _, state in jobs] == ["RUNNING"] * 2)
    capsys.readouterr()
    assert call(tiny, "kill") == 0
    assert "2 jobs of slurm go on; `motoko cancel` stops them\n" in capsys.readouterr().out
    assert [state for _, _, state in slurm_cluster.jobs()] == ["RUNNING"] * 2
    assert call(tiny, "cancel", "--yes") == 0
    assert capsys.readouterr().out == "cancelled 2 runs\n"
    slurm_cluster.wait_for_jobs(lambda jobs: [state for _, _, state in jobs] == ["CANCELLED"] * 2)
    assert tiny.states()["first"] == ["FAILED"] * 2
    assert processes(tiny) == []


def test_what_is_left_is_named_with_exit_code_1(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert call(tiny, "create") == 0
    workflow = Workflow(tiny.path / "motoko.yaml")
    directory = tiny.path / "first" / "BD-first-runs" / "run-7"
    directory.mkdir(parents=True)
    tag = "motoko-first-7-0123456789ab"
    remains = Remains(workflow, list(workflow.task_managers.values()), everything=True, keep_jobs=False)
    servers = remains.left()
    assert any("of the server of study 'first'" in line for line in servers)
    with psutil.Popen(["sleep", "1000"], cwd=directory, env={**os.environ, TAG_VARIABLE: tag}) as process:
        assert remains.left()[-1] == f"process {process.pid} of the job of first.7"
        remains.clear()
        assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    assert remains.left() == servers
    monkeypatch.setattr(Remains, "left", lambda _: ["process 7 of the job of first.7"])
    assert call(tiny, "kill") == 1
    assert "this is still there:\n  process 7 of the job of first.7\n" in capsys.readouterr().err
