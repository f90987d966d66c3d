"""A second client of a study: what scripts do with Motoko's API, and tasks and tools with BlackDynamite's.

Run as a process of its own, it reads commands, one JSON list per line, and answers each with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import transaction
from BlackDynamite.base_zeo import BaseZEO
from ZODB.POSException import ConflictError

from motoko_core import lifecycle
from motoko_core.workflow import Workflow
from tests.zeo_clients import caught_up, falling_behind

# ------------------------------------------------------------------ Motoko's API, in the current session


def create(workflow: Workflow, run_name: str, xs: list[float]) -> None:
    workflow.run_name = run_name
    workflow.mult.createTask(x=xs)


def put(workflow: Workflow, run_id: int, name: str, value: Any) -> None:
    setattr(workflow.mult.run(run_id), name, value)


def move(workflow: Workflow, run_id: int, name: str, value: Any) -> None:
    """Change a parameter of the job of a run."""
    job = workflow.mult.base.jobs[workflow.mult.run(run_id).job_id]
    job.entries[name] = value
    job._p_changed = True  # BlackDynamite's jobs keep them in a dictionary


def remove(workflow: Workflow, *run_ids: int) -> None:
    for run_id in run_ids:
        del workflow.mult.base.runs[run_id]


MOTOKO: dict[str, Callable[..., None]] = {"create": create, "put": put, "move": move, "remove": remove}

# ------------------------------------------------------------------ BlackDynamite's own API


def bd_create(base: Any, run_name: str, xs: list[float]) -> None:
    job = base.Job()
    job["x"] = xs
    base.createParameterSpace(job)
    for known in list(base.jobs.entries.values()):
        if known.x in xs:
            run = base.Run()
            run.setEntries({"run_name": run_name, "machine_name": "localhost", "nproc": 1, "exec": "none"})
            run.attachToJob(known)


def bd_put(base: Any, run_id: int, name: str, value: Any) -> None:
    base.runs[run_id].entries[name] = value


def bd_set(base: Any, run_id: int, name: str, value: Any) -> None:
    setattr(base.runs[run_id], name, value)


def bd_update(base: Any, run_id: int, name: str, value: Any) -> None:
    base.runs[run_id].update(**{name: value})


def bd_call(base: Any, run_id: int, method: str, *arguments: Any) -> None:
    getattr(base.runs[run_id], method)(*arguments)


BLACKDYNAMITE: dict[str, Callable[..., None]] = {
    **{"bd_create": bd_create, "bd_put": bd_put, "bd_set": bd_set},
    **{"bd_update": bd_update, "bd_call": bd_call},
}

# ------------------------------------------------------------------ the process


class Client:
    """The process's view of one workflow, through both APIs."""

    def __init__(self, directory: str) -> None:
        os.chdir(Path(directory) / "mult")
        self.workflow = Workflow(Path(directory) / "motoko.yaml")
        self.base = BaseZEO(host=f"zeo://{directory}/mult", study="mult")
        self.storages = [self.workflow.mult.database.db.storage, self.base.db.storage]
        # Motoko's clients are mended of what ends BlackDynamite's when the server was started again.
        storage = self.base.db.storage
        disconnected = storage.notify_disconnected

        def forget_the_ids_in_stock() -> None:
            storage._oids.clear()
            disconnected()

        storage.notify_disconnected = forget_the_ids_in_stock
        self._pause = contextlib.ExitStack()

    def do(self, tid: str, name: str, *arguments: Any) -> None:
        """Carry out and commit a command when everything up to ``tid`` is known here."""
        for storage in self.storages:
            caught_up(storage, bytes.fromhex(tid))
        work, target = (MOTOKO[name], self.workflow) if name in MOTOKO else (BLACKDYNAMITE[name], self.base)
        while True:
            transaction.begin()
            try:
                work(target, *arguments)
                transaction.commit()
            except ConflictError:
                transaction.abort()
            else:
                return

    def pause(self) -> None:
        self._pause.enter_context(falling_behind(*self.storages, cut=True))

    def resume(self) -> None:
        self._pause.close()

    def close(self) -> None:
        transaction.abort()
        lifecycle.disconnect(self.workflow)
        self.base.connection.close()
        self.base.db.close()
        BaseZEO.singleton_base = None


def main() -> None:
    client: Client | None = None
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer = "done"
        try:
            if name == "open":
                client = Client(*arguments)
            else:
                getattr(client, name)(*arguments)
        except Exception:  # noqa: BLE001  it is raised at the other end
            transaction.abort()
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)  # noqa: T201


class SecondClient:
    """The other end of the pipe."""

    def __init__(self) -> None:
        root = Path(__file__).parents[1]
        environment = {n: v for n, v in os.environ.items() if not n.startswith("BLACKDYNAMITE")}
        environment["PYTHONPATH"] = str(root)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.second_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )

    def tell(self, *command: Any) -> None:
        """Give a command, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer == "done", f"{command}:\n{answer}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop its network threads; connect anew afterwards."""
        self.tell("pause")
        try:
            yield
        finally:
            self.tell("resume")

    def end(self) -> None:
        self._process.communicate()


if __name__ == "__main__":
    main()
