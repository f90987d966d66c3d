"""The change feed: waiters are woken by what happens, not by looking again and again."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from ZEO.Exceptions import ClientDisconnected

from motoko_core import lifecycle
from motoko_core.daemons import is_gone, wait_until
from motoko_core.interfaces import RunChange
from motoko_core.session import Session, transact, use
from motoko_core.study import feed as feed_module
from motoko_core.study.feed import feed_of
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.processes import run_python

#: Longer than any test may take: nobody gets here by waiting.
FOREVER_S = 100 * TIMEOUT_S


def number(reference: str) -> int:
    return int(reference.rpartition(".")[2])


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, TIMEOUT_S)


async def test_waiter_is_woken_by_a_commit(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with feed_of(workflow.mult.database) as feed:
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, reference, "START")
        await soon(waiter)
    assert workflow.mult.database.index.rows[number(reference)]["state"] == "START"


async def test_waiter_is_woken_by_another_process(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    script = """
        import sys, BlackDynamite as BD
        BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[int(sys.argv[2])].start()
    """
    study = workflow.mult.study_dir
    with feed_of(workflow.mult.database) as feed:
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.to_thread(run_python, script, study, number(reference), cwd=study)
        await soon(waiter)


async def test_waiter_for_one_run_sleeps_while_others_change(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, x=[1, 2])
    with feed_of(workflow.mult.database) as feed:
        one = asyncio.ensure_future(feed.wait(number(first), FOREVER_S))
        any_run = asyncio.ensure_future(feed.wait(None, FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, second, "START")
        await soon(any_run)
        assert not one.done()
        set_state(workflow, first, "START")
        await soon(one)


async def test_waiter_is_woken_when_its_own_process_looks_first(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with feed_of(workflow.mult.database) as feed:
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, reference, "START")
        workflow.mult.database.index.refresh()  # a selection does this; the announcement finds nothing new
        await soon(waiter)


async def test_waiter_is_woken_when_another_thread_looks_first(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with feed_of(workflow.mult.database) as feed:
        # The announcement must not wake it in this test.
        feed._scheduled = True
        threads: list[int] = []
        feed.subscribe(lambda _: threads.append(threading.get_ident()))
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)

        def change_and_look() -> None:
            set_state(workflow, reference, "START")
            workflow.mult.database.index.refresh()

        await asyncio.to_thread(change_and_look)
        await soon(waiter)
    assert threads == [threading.get_ident()]


async def test_subscriber_hears_before_the_waiters_until_it_stops(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    heard: list[tuple[str | None, str | None]] = []
    with feed_of(workflow.mult.database) as feed:

        def subscriber(changes: Sequence[RunChange]) -> None:
            assert not waiter.done()
            heard.extend((change.before, change.after) for change in changes)

        stop = feed.subscribe(subscriber)
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, reference, "START")
        await soon(waiter)
        stop()
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, reference, "FINISHED")
        await soon(waiter)
    assert heard == [("CREATED", "START")]


async def test_feed_is_shared_and_ends_with_its_last_user(workflow: Workflow) -> None:
    study = workflow.mult.database
    with feed_of(study) as first:
        with feed_of(study) as second:
            assert first is second
        assert feed_of(study) is first
        assert study.index._announcing
    assert not study.index._announcing
    assert not study.index.listeners
    with feed_of(study) as third:
        assert third is not first


async def test_feed_can_be_left_after_the_study_was_closed(workflow: Workflow) -> None:
    with feed_of(workflow.mult.database):
        workflow.mult.database.close()


async def test_safety_look_finds_what_was_not_announced(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    with feed_of(workflow.mult.database) as feed:
        monkeypatch.setattr(index, "_announcing", [])
        set_state(workflow, reference, "START")
        await soon(feed.wait(number(reference), timeout_s=0))
        assert index.rows[number(reference)]["state"] == "START"
        monkeypatch.undo()


async def test_feed_tries_again_while_the_server_does_not_answer(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "_RECONNECT_S", 0)
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    take_in, failures = index._take_in, iter([True, True])

    def flaky() -> Any:
        if next(failures, False):
            raise ClientDisconnected
        return take_in()

    monkeypatch.setattr(index, "_take_in", flaky)
    with feed_of(workflow.mult.database) as feed:
        failures = iter([True, True])
        waiter = asyncio.ensure_future(feed.wait(number(reference), FOREVER_S))
        await asyncio.sleep(0)
        set_state(workflow, reference, "START")
        await soon(waiter)
    assert "cannot be read (ClientDisconnected" in caplog.text


def test_announcement_after_the_loop_has_ended_is_ignored(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    loop = asyncio.new_event_loop()

    async def leave_open() -> Any:
        feed = feed_of(workflow.mult.database)
        return feed.__enter__()

    feed = loop.run_until_complete(leave_open())
    loop.close()
    set_state(workflow, reference, "START")  # in ZEO's thread, an exception would end the connection
    assert workflow.mult.select("state = START")[0][0].id == number(reference)
    feed.__exit__()
    gc.collect()


def runzeo(workflow: Workflow) -> list[psutil.Process]:
    processes = workflow.mult.database.server.daemon.processes()
    return [process for process in processes if any(Path(w).name == "runzeo" for w in process.cmdline()[1:2])]


async def test_waiters_get_their_change_after_the_server_was_killed(
    make_workflow: Callable[..., Workflow],
) -> None:
    """zdaemon starts it again; what was committed in between is found when the client is back."""
    yaml = "task_managers: {mult: }\norchestrator: orchestrator.main\n"
    workflow = make_workflow(studies=("mult",), yaml=yaml)
    lifecycle.create_missing(workflow)
    workflow.run_name = "w"
    (reference,) = create_tasks(workflow, x=1)
    database = workflow.mult.database

    async def wait() -> list[str]:
        with use(Session("the waiter")):
            return [run.state for run, _ in await workflow.mult.createTask(x=1)]

    waiter = asyncio.ensure_future(wait())
    await asyncio.sleep(0.0)
    (server,) = runzeo(workflow)
    server.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(wait_until, lambda: is_gone(server), TIMEOUT_S)
    assert await asyncio.to_thread(wait_until, database.server.is_up, TIMEOUT_S)
    script = """
        import sys, BlackDynamite as BD
        BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[1].finish()
    """
    await asyncio.to_thread(run_python, script, workflow.mult.study_dir, cwd=workflow.mult.study_dir)
    assert await soon(waiter) == ["FINISHED"]
    assert transact("look", lambda: len(workflow.mult.select("state = FINISHED"))) == 1
    assert reference == "mult.1"
