"""Servers that are paused, or die and come back, while an orchestrator is at work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from motoko_core import lifecycle
from motoko_core.daemons import is_gone, wait_until
from motoko_core.interfaces import ErrorHandler, Failure, Ignore
from motoko_core.study import patience
from motoko_core.study import pulse as pulse_module
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, orchestrate, set_state
from tests.processes import run_python, runzeo

FINISH = """
    import sys, BlackDynamite as BD
    BD.Base(host="zeo://" + sys.argv[1], study=sys.argv[2]).runs[int(sys.argv[3])].finish()
"""


@pytest.fixture
def own(make_workflow: Callable[..., Workflow], monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """A workflow with servers of its own, and four tasks in each study."""
    monkeypatch.setattr(pulse_module, "_SLOW_S", 0.3)
    workflow = make_workflow()
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    for study in ("mult", "add"):
        create_tasks(workflow, study, x=[1.0, 2.0, 3.0, 4.0])
    return workflow


class Heartbeat:
    """Notes the longest time for which the event loop was held up."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.beats = 0

    async def __call__(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last)
            self.beats += 1
            last = now


async def finish(workflow: Workflow, study: str, run_id: int) -> None:
    """Finish a run from another process, as a task does."""
    manager = workflow.task_managers[study]
    await asyncio.to_thread(run_python, FINISH, manager.study_dir, study, run_id, cwd=manager.study_dir)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  nobody is there who could set an event
        await asyncio.sleep(0.01)


@contextmanager
def paused(server: psutil.Process) -> Iterator[None]:
    server.suspend()
    try:
        yield
    finally:
        server.resume()


async def test_the_loop_goes_on_while_a_server_is_paused(
    own: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "motoko")
    heartbeat, fired, awaited = Heartbeat(), [], []

    def on_finished(task_manager: Any, runs: Any) -> None:
        fired.extend(f"{task_manager.study}.{run.id}" for run, _ in runs)
        for _, job in runs:
            own.add.createTask(x=100.0 + job.x)

    async def wait(workflow: Workflow, task_manager: Any) -> None:
        awaited.append([run.state for run, _ in await workflow.mult.createTask(x=4.0)])

    async def main(workflow: Workflow) -> None:
        beating = asyncio.ensure_future(heartbeat())
        for study in ("mult", "add"):
            workflow.add_action("it", task=study, event="state = FINISHED", f=on_finished, once_per_run=True)
        workflow.add_action("wait", task="mult", event=lambda: True, f=wait, once_per_run=True)
        await finish(workflow, "mult", 1)
        await until(lambda: fired == ["mult.1"])

        with paused(runzeo(workflow.mult.database)):
            await until(lambda: "does not answer" in caplog.text)
            beats = heartbeat.beats
            await finish(workflow, "add", 1)  # the other study goes on; what fires would need both
            await until(lambda: heartbeat.beats > beats + 300)
            assert fired == ["mult.1"]

        await finish(workflow, "mult", 2)
        await finish(workflow, "mult", 4)
        await until(lambda: len(fired) == 4 and awaited)
        beating.cancel()
        workflow.finished = True

    await orchestrate(own, main)
    # The pause lasted for more than three seconds of heartbeats; a busy machine may delay one, too.
    assert heartbeat.longest_s < 2.0
    assert sorted(fired) == ["add.1", "mult.1", "mult.2", "mult.4"]
    assert awaited == [["FINISHED"]]
    assert [r.getMessage().count("does not answer") for r in caplog.records].count(1) == 1
    assert [r.getMessage().count("answers again") for r in caplog.records].count(1) == 1
    own.run_name = "w"
    assert sorted(j.x for _, j in own.add.select("jobs.x > 100")) == [101.0, 102.0, 104.0]


async def test_nothing_is_missed_while_a_server_is_killed_and_comes_back(
    own: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    fired: list[int] = []

    def on_finished(runs: Any) -> None:
        fired.extend(run.id for run, _ in runs)
        for run, _ in runs:
            run.entries["note"] = "seen"

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event="state = FINISHED", f=on_finished, once_per_run=True)
        await finish(workflow, "mult", 1)
        server = runzeo(workflow.mult.database)
        server.kill()
        assert await asyncio.to_thread(wait_until, lambda: is_gone(server), TIMEOUT_S)
        assert await asyncio.to_thread(wait_until, workflow.mult.database.server.is_up, TIMEOUT_S)
        await finish(workflow, "mult", 2)
        await until(lambda: len(fired) >= 2)
        workflow.finished = True

    await orchestrate(own, main)
    assert sorted(fired) == [1, 2]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("moment", ["before a read", "before the commit", "in an error handler"])
async def test_work_that_a_paused_server_holds_up_is_undone_and_repeated(
    own: Workflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    lifecycle.disconnect(own)  # what was created is in no cache
    own.run_name = "w"
    heartbeat, calls, stopped = Heartbeat(), [], []

    def stop(at: str, manager: Any) -> None:
        if at == moment and not stopped:
            manager.database.db.storage.file = None  # reads ask the server, as they do on another machine
            stopped.append(runzeo(manager.database))
            stopped[0].suspend()

    def on_finished(runs: Any) -> None:
        calls.append([run.id for run, _ in runs])
        stop("before a read", own.add)
        try:
            third = own.add.run(3).id
        except Exception:  # noqa: BLE001  user code may do that; what follows does not count
            third = -1
        own.mult.createTask(x=100.0 + third)
        for run, _ in runs:
            run.entries["note"] = "seen"
        stop("before the commit", own.mult)

    class Ignoring(ErrorHandler):
        def decide(self, failure: Failure) -> Ignore:
            stop("in an error handler", own.add)
            own.add.run(4).state  # noqa: B018
            return Ignore()

    async def main(workflow: Workflow) -> None:
        beating = asyncio.ensure_future(heartbeat())
        workflow.add_error_handler(f=Ignoring())
        workflow.add_action("it", task="mult", event="state = FINISHED", f=on_finished, once_per_run=True)
        await finish(workflow, "mult", 1)
        await until(lambda: calls)
        if moment == "in an error handler":
            failure = {"reason": "LOST", "attempt": 1}
            await asyncio.to_thread(set_state, workflow, "mult.2", "FAILED", motoko_failure=failure)
        # If the loop were held up for as long as the pause lasts, this would never go on.
        await until(lambda: stopped and "does not answer" in caplog.text)
        beats = heartbeat.beats
        await until(lambda: heartbeat.beats > beats + 100)
        stopped[0].resume()
        if moment == "in an error handler":
            await workflow.mult.createTask(x=2.0)  # it was ignored
        else:
            await until(lambda: len(calls) == 2)
        beating.cancel()
        workflow.finished = True

    await orchestrate(own, main)
    assert calls == ([[1]] if moment == "in an error handler" else [[1], [1]])
    own.run_name = "w"
    assert [job.x for _, job in own.mult.select("jobs.x > 50")] == [103.0]
    assert [run.entries.get("note") for run, _ in own.mult.select("runs.id = 1")] == ["seen"]
    assert not [r for r in caplog.records if r.name.startswith("motoko") and r.exc_info]


async def test_what_comes_after_the_workflow_waits_for_a_paused_server(
    own: Workflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)

    def main(workflow: Workflow) -> None:
        workflow.finished = True

    await orchestrate(own, main)
    own.run_name = "w"
    database = own.add.database
    with paused(runzeo(database)):
        looking = asyncio.ensure_future(asyncio.to_thread(database.db.storage.catch_up))
        await until(lambda: looking.done() or "does not answer" in caplog.text)
        assert not looking.done()
    await looking
