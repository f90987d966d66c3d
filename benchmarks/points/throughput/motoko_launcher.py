"""Motoko: a launcher in the background, and runs that are committed while it is ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transaction

from .. import study
from .tasks import SCRIPT, WORKERS, Engine, Taken

_MANY, _CHAIN = "many", "chain"
#: Runs of 0.1.4 do not become FINISHED by themselves: their scripts have to say so.
_DO_IT = """\
import BlackDynamite as BD

run, job = BD.getRunFromScript()
run.start()
run.finish()
"""
#: Looking costs time that the launcher could have; more often towards the end.
_LOOK_S = (0.005, 0.25)
_TASKS_PER_S = 2_000


class _Motoko:
    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow
        self._created = 0

    def independent(self, count: int) -> Taken:
        points = [float(self._created + number) for number in range(count)]
        self._created += count
        begin = time.perf_counter()
        self._workflow.many.createTask(x=points)
        transaction.commit()
        created = time.perf_counter()
        while left := self._created - self._finished():
            time.sleep(min(max(left / _TASKS_PER_S, _LOOK_S[0]), _LOOK_S[1]))
        return Taken(created - begin, time.perf_counter() - created)

    def _finished(self) -> int:
        transaction.begin()  # to see what others have committed
        return len(self._workflow.many.select("state = FINISHED"))

    def chain(self, length: int) -> float:
        ends: list[float] = []

        async def forward(runs: Any, workflow: Any, **_: Any) -> None:
            for run, job in runs:
                ends.append(time.perf_counter())
                run.state = "FORWARDED"
                if len(ends) < length:
                    workflow.chain.createTask(x=job.x + 1)
                else:
                    workflow.finished = True

        async def first(workflow: Any, **_: Any) -> None:
            workflow.chain.createTask(x=0.0)

        self._workflow.add_action("forward", task=_CHAIN, event="state = FINISHED", f=forward)
        self._workflow.orchestrator_function = first
        self._workflow.execute()
        return (ends[-1] - ends[0]) / (length - 1)


@contextmanager
def engine(variant: str) -> Iterator[Engine]:
    """:param variant: ``script`` if the task has to tell itself how it ends."""
    launch = study.LAUNCH_SH if variant == "script" else SCRIPT
    study.write(Path(), (_MANY, _CHAIN), _DO_IT, study.ORCHESTRATOR, launch)
    with Path("motoko.yaml").open("a") as file:
        file.write(f"bash_options: [slots={WORKERS}]\n")
    workflow = study.open_workflow()
    workflow.create(validated=True)
    workflow.start_launcher_daemons()  # answers when the launcher has its lock: it is ready
    workflow.many.connect()
    yield _Motoko(workflow)
