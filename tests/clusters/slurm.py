"""A real SLURM cluster of three nodes on this machine, in a temporary directory and on ports of its own.

Nothing of the host is touched: the cluster has its own munged with its own key, and `SLURM_CONF` leads its
programs to it. Several clusters live side by side. Whatever becomes of the test process, it is taken
down: see reaper.py.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clusters import reaper, wrapper
from tests.ports import claim_ports

NODES = ("node1", "node2", "node3")

#: The daemons are not on everybody's PATH.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

#: Enough for a busy machine; starting takes 1.5 s on an idle one.
TIMEOUT_S = 60.0

# Everything that has a period has the shortest. A command whose controller is down fails after
# MessageTimeout - 1 s. The controller looks for time limits and forgets jobs in periods that nobody can set,
# 30 s and 60 s: see `end_time_limit` and `forget_jobs`.
CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={directory}/jobcomp.txt
MailProg=/bin/true
FirstJobId=1
DebugFlags=NO_CONF_HASH
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=5
KillWait=2
MinJobAge={min_job_age_s}
OverTimeLimit=0
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
NodeName=node[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """A cluster of the nodes `node1` to `node3`, with 4 cores each and the partition `main`.

    :param min_job_age_s: how long `squeue` knows a job that has ended, at least; seconds.
    :param settings: further lines for slurm.conf.
    """

    def __init__(self, *, min_job_age_s: int = 60, settings: str = "") -> None:
        self._claim, port = claim_ports(len(NODES) + 1)
        # Not below pytest's directories: a socket's path must not exceed 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="motoko-slurm-"))
        self._reaper = reaper.start(self.directory)
        self.directory.chmod(0o755)  # munged refuses a socket that not everybody reaches
        self.configuration = self.directory / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        (self.directory / "state").mkdir()
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        text = CONFIGURATION.format(
            directory=self.directory,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            name=f"motoko{port}",
            port=port,
            first=port + 1,
            last=port + len(NODES),
            min_job_age_s=min_job_age_s,
        )
        self.configuration.write_text(text + settings)
        #: First on the PATH: see `wrap`.
        self.programs = self.directory / "bin"
        self.programs.mkdir()
        self._last_job = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs, beside the rest of its environment, to be a client of this cluster."""
        return {
            "SLURM_CONF": str(self.configuration),
            "PATH": os.pathsep.join([str(self.programs), PATH]),
        }

    def start(self) -> None:
        """Start everything; return when the nodes take jobs, after 1.5 s.

        :raises AssertionError: it did not come up; holds the ends of the logs.
        """
        here = self.directory
        self._start("munged", "munged", "-F", f"--key-file={here}/munge.key", f"--socket={here}/munge.socket",
                    f"--pid-file={here}/munged.pid", f"--seed-file={here}/munge.seed",
                    f"--log-file={here}/munged.log")  # fmt: skip
        self._wait((here / "munge.socket").exists, "munged has a socket")
        self._start("slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            self._start(node, "slurmd", "-D", "-N", node)
        self.wait_for_nodes(*NODES)

    def stop(self) -> None:
        """Take everything down and remove the directory."""
        reaper.stop(self._reaper)
        for daemon in self._daemons.values():
            daemon.wait()
        self._claim.close()

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's programs, not its wrapper; answer its standard output.

        :raises AssertionError: it failed, and ``check`` holds.
        """
        environment = {**os.environ, **self.environment, "PATH": PATH}
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def stop_controller(self) -> None:
        """Stop slurmctld; jobs go on."""
        self._end("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld with the state that it saved; return when it answers."""

        def answers() -> bool:
            # (It gives up if what the last one has left, processes or connections, still has its port.)
            if not self._is_up("slurmctld"):
                self._start("slurmctld", "slurmctld", "-D")
            return "UP" in self.run("scontrol", "ping", check=False)

        self._wait(answers, "slurmctld answers")

    def kill_node(self, node: str) -> None:
        """Have a node fail: its slurmd and all of its jobs are killed. It is DOWN within 20 s or so."""
        self._end(node, signal.SIGKILL)
        reaper.kill_all(lambda: reaper.processes_of(self.directory, node))

    def kill_slurmd(self, node: str) -> None:
        """Kill the slurmd of a node, whose jobs go on."""
        self._end(node, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Have a node back; return when it takes jobs."""
        if not self._is_up(node):
            self._start(node, "slurmd", "-D", "-N", node)
        self.wait_for_nodes(node)

    def wait_for_nodes(self, *nodes: str) -> None:
        """Wait until these nodes take jobs."""

        def is_done() -> bool:
            answer = self.run("sinfo", "-h", "-N", "-n", ",".join(nodes), "-o", "%T", check=False)
            states = answer.split()
            return len(states) == len(nodes) and set(states) <= {"idle", "mixed", "allocated", "completing"}

        self._wait(is_done, f"{', '.join(nodes)} take jobs")

    def jobs(self, *fields: str) -> list[list[str]]:
        """Ask for all jobs that the controller knows, but those from before the last `reset`.

        :param fields: what to answer of each, in the letters of ``squeue --format``; ``"%F", "%K", "%T"`` by
            default: id, array index or ``N/A``, state.
        """
        wanted = "|".join(["%A", *(fields or ("%F", "%K", "%T"))])
        lines = self.run("squeue", "-a", "-h", "-r", "-t", "all", "-o", wanted).splitlines()
        jobs = sorted((line.split("|") for line in lines), key=lambda job: int(job[0]))
        return [job[1:] for job in jobs if int(job[0]) > self._last_job]

    def wait_for_jobs(self, condition: Callable[[list[list[str]]], object], *fields: str) -> list[list[str]]:
        """Wait until what `jobs` answers is so; answer it."""
        found: list[list[str]] = []

        def is_done() -> bool:
            found[:] = self.jobs(*fields)
            return bool(condition(found))

        self._wait(is_done, lambda: f"the jobs are so; they are {found}")
        return found

    def end_time_limit(self, job: str) -> None:
        """Have the time limit of a running job end now; the controller sees it within 30 s: TIMEOUT."""
        self.run("scontrol", "update", f"JobId={job}", "EndTime=now")

    def forget_jobs(self) -> None:
        """Have the controller forget every job, as if it had been long ago; those that run are killed.

        The ids go on: a node refuses a job with the id of one that has ended there within a minute or two, or
        has just been killed, and the controller takes it for running.
        """
        (next_id,) = re.findall(r"NEXT_JOB_ID\s*=\s*(\d+)", self.run("scontrol", "show", "config"))
        self.stop_controller()
        text = re.sub(r"(?m)^FirstJobId=.*", f"FirstJobId={next_id}", self.configuration.read_text())
        self.configuration.write_text(text)
        for path in (self.directory / "state").glob("job_state*"):
            path.unlink()
        self.start_controller()

    def reset(self) -> None:
        """Start what is down, cancel every job, drop the wrappers: a cluster for the next test."""
        self.start_controller()
        wrapper.remove_all(self.programs)
        for node in NODES:
            if not self._is_up(node):
                self._start(node, "slurmd", "-D", "-N", node)
        self.run("scancel", "--user", getpass.getuser(), check=False)
        for node in NODES:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

        def is_done() -> bool:
            return not self.run("squeue", "-a", "-h", "-o", "%i %T")

        self._wait(
            is_done, lambda: f"no job is left: {self.run('squeue', '-a', '-h', '-o', '%i %T', check=False)}"
        )
        self.wait_for_nodes(*NODES)
        self._last_job = max((int(job) for (job,) in self.jobs("%A")), default=self._last_job)

    def wrap(self, program: str, *, before: str = "", after: str = "") -> None:
        """Count the calls of a program, and have shell commands executed before and after it.

        ``before`` may end it (``exit 1``) and call ``"$real" "$@"`` itself; ``after`` finds the exit code in
        ``$code`` and may end otherwise.
        """
        real = shutil.which(program, path=PATH)
        assert real is not None, program
        wrapper.write(self.programs, program, real, before, after)

    def calls(self, program: str) -> list[str]:
        """The arguments of the calls of a program since it was wrapped, one line for each."""
        return wrapper.calls(self.programs, program)

    def _start(self, name: str, *command: str) -> None:
        program = shutil.which(command[0], path=PATH)
        assert program is not None, command[0]
        place = reaper.place_of(self.directory, name)
        place.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [program, *command[1:]],
                env={**os.environ, **self.environment},
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests; the cluster goes when they have ended
            )

    def _is_up(self, name: str) -> bool:
        return name in self._daemons and self._daemons[name].poll() is None

    def _end(self, name: str, number: int) -> None:
        self._daemons[name].send_signal(number)
        self._daemons[name].wait(TIMEOUT_S)

    def _wait(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        """Wait for what has no event, with a limit. While a program of SLURM's fails, it is not so."""
        end = time.monotonic() + TIMEOUT_S

        def holds() -> object:
            with suppress(AssertionError):
                return condition()
            return False

        while not holds():
            if time.monotonic() > end:
                what = what if isinstance(what, str) else what()
                pytest.fail(f"SLURM: not so after {TIMEOUT_S:.0f} s: {what}\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """What the daemons have written last."""
        paths = [*self.directory.glob("*.log"), *self.directory.glob("*.out")]
        with suppress(FileNotFoundError):  # it is being taken down
            return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in paths)
        return ""
