"""The engines whose throughput is measured: Motoko, its peers, and what spawning alone costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import attrs

from benchmarks.subjects import MOTOKO, PEER, Subject, installed, own, peer

#: Longer ones are not needed: what they vary by is small beside other engines.
_CHAIN = 20
#: An engine that takes longer, its start included, is measured once.
LONG_S = 30.0
#: What the fast ones execute, unless told otherwise.
TASKS = 2_000


@attrs.frozen
class Engine:
    """A row of the table.

    :param script: the module of ``points.throughput``, and which variant of it.
    :param package: what is installed for it; "": nothing.
    :param survives: what is left of the states of tasks after a crash; "": there are none.
    :param share: how much of the number of tasks it gets: the slow ones would take too long.
    :param chain: tasks that are executed one after the other.
    :param is_peer: whether Motoko has to execute more tasks than it.
    """

    name: str
    script: str
    package: str = ""
    survives: str = ""
    share: float = 1.0
    chain: int = _CHAIN
    is_peer: bool = True

    def tasks(self, number: int) -> int:
        """How many it has to execute where the others execute ``number``."""
        return max(2, round(number * self.share))


OWN_ENGINE = Engine("Motoko", "motoko_launcher", survives="every state", is_peer=False)
PEER_ENGINE = Engine(
    f"Motoko {PEER}", "motoko_launcher:script", survives=OWN_ENGINE.survives, share=0.008, chain=3
)
_PARSL = "nothing, unless checkpointed"
_PARSL_STORED = "results of finished tasks"
ENGINES = (
    OWN_ENGINE,
    Engine("spawning alone: os.posix_spawn", "spawning:posix_spawn", is_peer=False),
    Engine("spawning alone: asyncio", "spawning:asyncio", is_peer=False),
    Engine("Parsl, threads, subprocess.run", "parsl_apps:threads", "parsl", _PARSL),
    Engine("Parsl, threads, bash_app", "parsl_apps:threads+bash", "parsl", _PARSL),
    Engine("Parsl, threads, checkpoints", "parsl_apps:threads+checkpoint", "parsl", _PARSL_STORED),
    Engine("Parsl, HTEX, subprocess.run", "parsl_apps:htex", "parsl", _PARSL),
    Engine("Parsl, HTEX, bash_app", "parsl_apps:htex+bash", "parsl", _PARSL),
    Engine("Dask distributed", "dask_workers", "distributed", "nothing"),
    Engine("HyperQueue, local cluster", "hyperqueue_cluster", "hyperqueue", "nothing, unless journaled"),
    Engine("jobflow, run_locally", "jobflow_local", "jobflow", "outputs, in memory here", share=0.5),
    Engine("Snakemake", "snakemake_rules", "snakemake", "output files", share=0.2),
    PEER_ENGINE,
)


def subject_of(engine: Engine, tasks: int, limit_s: float) -> Subject | None:
    """The engine in its environment, which is made at the first call; None if that is not possible.

    :param tasks: how many the fast ones execute.
    :param limit_s: how long a figure of a peer may take.
    """
    this = own()
    try:
        packages: tuple[str, ...] = MOTOKO
        if engine is OWN_ENGINE:
            python = this.python
        elif engine is PEER_ENGINE:
            python = peer(limit_s).python
        elif engine.package:
            python, packages = installed(engine.package, engine.package), (engine.package,)
        else:
            python, packages = this.python, ()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{engine.name} is left out: {error}", file=sys.stderr)
        return None
    settings = ("--engine", engine.script, "--tasks", engine.tasks(tasks), "--chain", engine.chain)
    limit_s = this.limit_s if engine is OWN_ENGINE else limit_s
    return Subject(engine.name, python, limit_s, packages=packages, settings=settings)


def subjects(chosen: Sequence[Engine], tasks: int, limit_s: float) -> list[Subject]:
    """Those engines that there are, or can be installed."""
    return [found for engine in chosen if (found := subject_of(engine, tasks, limit_s))]
