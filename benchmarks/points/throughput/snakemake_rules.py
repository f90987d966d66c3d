"""Snakemake: a process for each measurement; the time of one with a single task is taken off."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .tasks import WORKERS, Engine, Taken, command

_SNAKEFILE = """\
tasks = range(int(config["tasks"]))

rule all:
    input: expand(config["kind"] + "/{{number}}", number=tasks)

rule independent:
    output: touch("independent/{{number}}")
    shell: "{command}"

rule chain:
    input: lambda w: ["chain/" + str(int(w.number) - 1)] if int(w.number) else []
    output: touch("chain/{{number}}")
    shell: "{command}"
"""


class _Snakemake:
    def __init__(self) -> None:
        self._numbers = itertools.count()
        Path("Snakefile").write_text(_SNAKEFILE.format(command=shlex.join(command())))
        self._seconds("independent", 1)

    def independent(self, count: int) -> Taken:
        return Taken(0, self._one_more("independent", count) * count)

    def chain(self, length: int) -> float:
        return self._one_more("chain", length)

    def _one_more(self, kind: str, tasks: int) -> float:
        """What one task more takes."""
        single_s = self._seconds(kind, 1)
        return (self._seconds(kind, tasks) - single_s) / (tasks - 1)

    def _seconds(self, kind: str, tasks: int) -> float:
        """The time of a process with so many tasks, in a directory where none was done."""
        directory = f"d{next(self._numbers)}"
        words = ["--quiet", "all", "--directory", directory, "--config", f"tasks={tasks}", f"kind={kind}"]
        begin = time.perf_counter()
        subprocess.run(["snakemake", "--cores", str(WORKERS), *words], check=True)
        taken = time.perf_counter() - begin
        assert len([*Path(directory, kind).iterdir()]) == tasks
        return taken


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    yield _Snakemake()
