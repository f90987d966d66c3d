"""An orchestrator: its start, how soon it reacts, what a change costs it with many actions, its memory."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from . import study
from .process import arguments, resident_bytes, tell

_EVENTS = 200


class Orchestrator:
    """Finds out when the engine is at work, then has runs set FINISHED, one after the other.

    :param limit_s: how long it goes on.
    :param actions: how many others are registered: then its start is not what it is without.
    :param pause_s: the random pause before each is at most so long: the interval in which a version looks,
        so that it is met at any time of its round.
    """

    def __init__(self, runs: int, limit_s: float, pause_s: float, actions: int) -> None:
        self._limit_s, self._pause_s = limit_s, pause_s
        self._actions = actions
        # How often the run filters have still to be asked, until each was asked about each run.
        self._to_ask = actions // 2 * runs
        self._asked = asyncio.Event()
        others = [i for i, state in enumerate(study.states(runs), 1) if state != "START"]
        count = min(_EVENTS, len(others))
        self._ids = [others[k * len(others) // count] for k in range(count)]
        self._began = time.perf_counter()
        self._start_s = 0.0
        self._started = asyncio.Event()
        self._seen: asyncio.Queue[int] = asyncio.Queue()
        self.reactions_ms: list[float] = []
        self.commits_ms: list[float] = []
        self.cpu_ms = 0.0

    def is_up(self, workflow: Any, task_manager: Any) -> bool:
        return not self._started.is_set() and len(task_manager.select("state = START")) == study.FEW

    async def note_start(self, **_: Any) -> None:
        self._start_s = time.perf_counter() - self._began
        self._started.set()

    async def react(self, runs: Any, **_: Any) -> None:
        moment = time.monotonic_ns()
        for run, _job in runs:
            run.state = "FORWARDED"
            self._seen.put_nowait(moment)

    async def main(self, workflow: Any, **_: Any) -> None:
        await self._started.wait()
        if not self._actions:
            tell("cold_orchestrator", self._start_s)
            self._asked.set()
        await self._asked.wait()
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "points.writer"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        await writer.stdout.readline()
        await asyncio.sleep(self._pause_s)
        end = time.monotonic() + self._limit_s
        cpu = time.process_time()
        while len(self.reactions_ms) < _EVENTS and (not self.reactions_ms or time.monotonic() < end):
            await asyncio.sleep(random.uniform(0, self._pause_s))
            run_id = self._ids[len(self.reactions_ms) % len(self._ids)]
            writer.stdin.write(f"{study.NAME}.{run_id}\n".encode())
            begin, done = map(int, (await writer.stdout.readline()).split())
            self.reactions_ms.append((await self._seen.get() - begin) / 1e6)
            self.commits_ms.append((done - begin) / 1e6)
        self.cpu_ms = (time.process_time() - cpu) * 1e3 / len(self.reactions_ms)
        writer.stdin.close()
        await writer.wait()
        workflow.finished = True

    def add_actions(self, workflow: Any) -> None:
        """Register actions that wait for what does not come: half constraints, half run filters."""
        for number in range(self._actions):
            name = f"WANTED_{number}"
            wanted = f"state = {name}" if number < self._actions - self._actions // 2 else self._filter(name)
            workflow.add_action(name, task=study.NAME, event=wanted, f=never)

    def _filter(self, name: str) -> Callable[[Any, Any], bool]:
        def has_state(run: Any, job: Any) -> bool:
            self._to_ask -= 1
            if not self._to_ask:
                self._asked.set()
            return bool(run.state == name)

        return has_state


async def never(**_: Any) -> None:
    raise AssertionError("nobody sets this state")


def main() -> None:
    args = arguments("--actions", "--pause")
    from motoko.workflow import Workflow  # noqa: F401  importing is not part of the cold start

    limit_s = args.seconds * (5 if args.actions else 15)
    played = Orchestrator(args.runs, limit_s, args.pause, int(args.actions))
    workflow = study.open_workflow()
    workflow.wait_forever = True
    workflow.orchestrator_function = played.main
    workflow.add_action("is up", task=study.NAME, event=played.is_up, f=played.note_start)
    workflow.add_action("react", task=study.NAME, event="state = FINISHED", f=played.react)
    played.add_actions(workflow)
    workflow.execute()

    reactions, events = played.reactions_ms, len(played.reactions_ms)
    if args.actions:
        tell("change", played.cpu_ms, events)
        return
    tell("reaction_p50", statistics.median(reactions), events)
    tell("reaction_p99", sorted(reactions)[min(events - 1, int(0.99 * events))], events)
    tell("commit_p50", statistics.median(played.commits_ms), events)
    tell("orchestrator_rss", resident_bytes())


if __name__ == "__main__":
    main()
