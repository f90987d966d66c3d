"""The change feed: waiters are woken by what happens, not by looking again and again."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSError

from motoko_core import lifecycle
from motoko_core.daemons import is_gone, wait_until
from motoko_core.interfaces import RunChange
from motoko_core.session import Session, transact, use
from motoko_core.study import feed as feed_module
from motoko_core.study.changes import Batch
from motoko_core.study.feed import ChangeFeed, feed_of, window_s
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, number, set_state
from tests.processes import run_python, runzeo

#: Longer than any test may take: nobody gets here by waiting.
FOREVER_S = 100 * TIMEOUT_S


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, TIMEOUT_S)


async def last_state(changes: Any, run_id: int) -> tuple[str | None, str | None]:
    """The next change of a run, merged with those that come with it."""
    async for batch in changes:
        for change in batch:
            if change.run_id == run_id:
                return change.before, change.after
    raise AssertionError("the feed ended")


async def test_a_commit_is_announced(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
        await soon(feed.current())
        changes.take()
        set_state(workflow, reference, "START")
        assert await soon(last_state(changes, number(reference))) == ("CREATED", "START")
        assert workflow.mult.database.index.rows[number(reference)]["state"] == "START"


async def test_a_commit_of_another_process_is_announced(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    script = """
        import sys, BlackDynamite as BD
        BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[int(sys.argv[2])].start()
    """
    study = workflow.mult.study_dir
    with feed_of(workflow.mult.database) as feed, feed.watching([number(reference)]) as watcher:
        await asyncio.to_thread(run_python, script, study, number(reference), cwd=study)
        assert await soon(watcher.changed(FOREVER_S)) == {number(reference)}


async def test_watcher_of_one_run_sleeps_while_others_change(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, x=[1, 2])
    with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
        await soon(feed.current())
        changes.take()
        with feed.watching([number(first)]) as watcher:
            waiter = asyncio.ensure_future(watcher.changed(FOREVER_S))
            set_state(workflow, second, "START")
            await soon(last_state(changes, number(second)))
            assert not waiter.done()
            set_state(workflow, first, "START")
            assert await soon(waiter) == {number(first)}
        assert not feed._watchers


async def test_changes_reach_the_loop_in_their_order_whoever_looks(workflow: Workflow) -> None:
    """A selection in the loop or in another thread finds them before the feed does."""
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    threads: list[int] = []
    with feed_of(workflow.mult.database) as feed:
        await soon(feed.current())
        feed._resting = True  # the feed itself does not look in this test
        with feed.changes(lambda: threads.append(threading.get_ident())) as changes:

            def change_and_look() -> None:
                set_state(workflow, reference, "START")
                index.refresh()

            thread = threading.Thread(target=change_and_look)
            thread.start()
            thread.join()  # the loop has not heard of it yet
            set_state(workflow, reference, "FINISHED")
            index.refresh()
            assert await soon(anext(changes)) == Batch(changes=changes_of(reference, "CREATED", "FINISHED"))
    assert set(threads) == {threading.get_ident()}


def changes_of(reference: str, before: str, after: str) -> Any:
    return (RunChange(run_id=number(reference), before=before, after=after),)


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
    with feed_of(workflow.mult.database) as feed:
        await soon(feed.current())
        workflow.mult.database.close()


async def test_safety_look_finds_what_was_not_announced(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    with feed_of(workflow.mult.database) as feed, feed.watching([number(reference)]) as watcher:
        await soon(feed.current())
        monkeypatch.setattr(index, "_announcing", [])
        set_state(workflow, reference, "START")
        assert await soon(watcher.changed(timeout_s=0)) == {number(reference)}
        await soon(feed.current())
        assert index.rows[number(reference)]["state"] == "START"
        monkeypatch.undo()


# ---------------------------------------------------------------------- gathering


class Later:
    """``call_later``, with the time in the hands of the test."""

    def __init__(self, feed: ChangeFeed) -> None:
        self.pending: list[Callable[[], None]] = []
        feed._later = lambda seconds, f: self.pending.append(f)

    def pass_by(self) -> None:
        pending, self.pending = self.pending, []
        for f in pending:
            f()


def test_window_is_a_multiple_of_what_a_look_costs_up_to_a_limit() -> None:
    assert window_s(0.001) == pytest.approx(0.004)
    assert window_s(0.0) == 0.0
    assert window_s(3.0) == 0.05


async def resting(feed: Any, expected: bool) -> bool:
    return await asyncio.to_thread(wait_until, lambda: feed._resting is expected, TIMEOUT_S)


async def test_a_burst_is_a_few_batches_and_a_single_change_is_delivered_at_once(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand changes in two hundred commits of another process; the window ends when it has ended."""
    references = create_tasks(workflow, x=[float(x) for x in range(500)])
    script = """
        import sys, BlackDynamite as BD, transaction
        runs = BD.Base(host="zeo://" + sys.argv[1], study="mult").runs
        first, last = int(sys.argv[2]), int(sys.argv[3])
        for turn in range(20):
            for begin in range(first, last + 1, 50):
                for i in range(begin, min(begin + 50, last + 1)):
                    runs[i].entries["state"] = "LAST" if turn == 19 else f"STEP {turn}"
                transaction.commit()
    """
    with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
        await soon(feed.current())
        assert await resting(feed, False)  # a window that is open would close in the middle
        later = Later(feed)
        changes.take()
        ids = [number(reference) for reference in references]
        set_state(workflow, references[0], "START")
        assert await soon(last_state(changes, ids[0])) == ("CREATED", "START")  # nobody waited for the window
        assert await resting(feed, True)  # it may have been somebody else's look that found the change

        study = workflow.mult.study_dir
        await asyncio.to_thread(run_python, script, study, ids[0], ids[-1], cwd=study)
        assert not changes
        later.pass_by()
        batch = await soon(anext(changes))
        assert {change.run_id: change.after for change in batch} == dict.fromkeys(ids, "LAST")
        later.pass_by()
        await soon(feed.current())
        assert not changes.take().changes


async def test_consumer_that_does_not_keep_up_is_told_to_look_at_everything(workflow: Workflow) -> None:
    references = create_tasks(workflow, x=[float(x) for x in range(8)])
    with feed_of(workflow.mult.database) as feed:
        await soon(feed.current())
        with feed.changes(limit=5) as slow, feed.changes() as quick:
            for reference in references:
                set_state(workflow, reference, "START")
                await soon(feed.current())
            assert slow.take().rescan
            assert len(quick.take().changes) == 8


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize("error", [ClientDisconnected(), POSError("damaged")])
async def test_feed_tries_again_while_the_server_does_not_answer(
    workflow: Workflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(feed_module, "_RETRY_S", 0)
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
        await soon(feed.current())
        changes.take()
        take_in, failures = index._take_in, iter([True, True, True])

        def flaky() -> Any:
            if next(failures, False):
                raise error
            return take_in()

        monkeypatch.setattr(index, "_take_in", flaky)
        set_state(workflow, reference, "START")
        batch = await soon(anext(changes))
        assert batch.rescan  # what was announced was lost
        assert [change.after for change in batch] == ["START"]
    said = "does not answer" if isinstance(error, ClientDisconnected) else "cannot be read (POSError"
    assert caplog.text.count(said) == 1


async def test_a_loss_is_told_together_with_what_the_same_look_has_found(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at everything on hearing of the loss is not told of older changes after it."""
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    with feed_of(workflow.mult.database) as feed, feed.changes() as changes:
        await soon(feed.current())
        await soon(feed.idle())
        changes.take()
        batches = []

        def meanwhile(_: object) -> None:
            feed._deliver()  # the loop gets here while the index tells one after the other
            batches.append(changes.take())

        index.listeners.insert(0, meanwhile)
        feed._resting = True  # the feed itself does not look in this test
        set_state(workflow, reference, "START")
        with monkeypatch.context() as patch:
            patch.setattr(index, "_take_in", Mock(side_effect=POSError("damaged")))
            with pytest.raises(POSError):
                index.refresh()
        index.refresh()
        batches.append(changes.take())
    index.listeners.remove(meanwhile)
    assert [batch for batch in batches if batch] == [
        Batch(changes=changes_of(reference, "CREATED", "START"), rescan=True)
    ]


async def test_everybody_is_told_when_the_study_cannot_be_followed(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = create_tasks(workflow, x=1)
    index = workflow.mult.database.index
    with (
        feed_of(workflow.mult.database) as feed,
        feed.changes() as changes,
        feed.watching([number(reference)]) as watcher,
    ):
        await soon(feed.current())
        waiter = asyncio.ensure_future(watcher.changed(FOREVER_S))

        def broken() -> Any:
            raise KeyError("torn")

        monkeypatch.setattr(index, "_take_in", broken)
        set_state(workflow, reference, "START")
        for awaitable in (waiter, feed.current(), feed.current()):
            with pytest.raises(KeyError, match="torn"):
                await soon(awaitable)
        with pytest.raises(KeyError, match="torn"):
            changes.take()
    monkeypatch.undo()
    index.rescan()


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
    server = runzeo(database)
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
