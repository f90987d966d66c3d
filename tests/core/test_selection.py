"""Selections and lists of runs: looking tasks up, and waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from motoko_core import selection
from motoko_core.errors import ConstraintError, RunFailed, TaskError
from motoko_core.session import Session, transact, use
from motoko_core.study import feed
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, create_tasks, set_state
from tests.driving import settle
from tests.zeo_clients import half_told


@pytest.fixture(autouse=True)
def _no_safety_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter that is not woken hangs, and the test with it."""
    monkeypatch.setattr(selection, "SAFETY_S", 10 * TIMEOUT_S)
    monkeypatch.setattr(feed.Watcher.changed, "__defaults__", (10 * TIMEOUT_S,))


def ids(pairs: Any) -> list[int]:
    return [run.id for run, _ in pairs]


def numbers(references: list[str]) -> list[int]:
    return [int(reference.rpartition(".")[2]) for reference in references]


async def while_waiting(waiter: Awaitable[Any], *steps: Callable[[], Any]) -> Any:
    """Await something in a session of its own; take the steps while it waits, each after it went to sleep."""

    async def wait() -> Any:
        with use(Session("the waiter")):
            return await waiter

    task = asyncio.ensure_future(wait())
    for step in steps:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done(), task
        await asyncio.to_thread(step)
    return await asyncio.wait_for(task, TIMEOUT_S)


# ------------------------------------------------------------------ looking up


def test_selection_is_a_sequence_of_pairs(workflow: Workflow) -> None:
    expected = numbers(create_tasks(workflow, x=[1, 2, 3]))
    selection = workflow.mult.select("x >= 1")
    assert len(selection) == 3
    assert bool(selection)
    assert ids(selection) == expected
    assert ids(selection()) == ids(selection.exec()) == expected
    run, job = selection[0]
    assert (run.id, job.x) == (expected[0], 1.0)
    assert selection[-1][0].id == expected[-1]
    assert ids(selection[1:]) == expected[1:]
    assert ids(reversed(selection)) == expected[::-1]
    with pytest.raises(IndexError):
        selection[3]


def test_empty_selection_is_false(workflow: Workflow) -> None:
    selection = workflow.mult.select()
    assert not selection
    assert len(selection) == 0
    assert list(selection) == []


def test_selection_is_looked_up_anew(workflow: Workflow) -> None:
    selection = workflow.mult.select("state = CREATED")
    assert len(selection) == 0
    (reference,) = create_tasks(workflow, x=1)
    assert len(selection) == 1
    set_state(workflow, reference, "FINISHED")
    assert len(selection) == 0


def test_several_constraints_must_all_hold(workflow: Workflow) -> None:
    _, second, _ = create_tasks(workflow, x=[1, 2, 3])
    set_state(workflow, second, "FINISHED")
    assert ids(workflow.mult.select(["x > 1", "state = FINISHED"])) == numbers([second])
    assert ids(workflow.mult.select(c for c in ("x > 1", "state = FINISHED"))) == numbers([second])


def test_wrong_constraint_is_refused_before_it_is_used(workflow: Workflow) -> None:
    with pytest.raises(ConstraintError, match="there is no entry 'stat'"):
        workflow.mult.select("stat = CREATED")
    with pytest.raises(ConstraintError, match="there is no entry 'y'"):
        workflow.mult.select().all("y = 1")


def test_all_is_the_selection_or_false(workflow: Workflow) -> None:
    all_finished = workflow.mult.select().all("state = FINISHED", "state = FORWARDED")
    assert all_finished() is False  # nothing is selected: no one is finished
    first, second = create_tasks(workflow, x=[1, 2])
    set_state(workflow, first, "FINISHED")
    assert all_finished() is False
    set_state(workflow, second, "FORWARDED")
    assert all_finished() is False  # all have to meet the same set
    set_state(workflow, first, "FORWARDED")
    assert ids(all_finished()) == numbers([first, second])


def test_and_needs_both_sides(workflow: Workflow) -> None:
    both = workflow.mult.select("state = FINISHED") & workflow.add.select()
    (first,) = create_tasks(workflow, "mult", x=1)
    assert both() is False
    set_state(workflow, first, "FINISHED")
    assert both() is False
    create_tasks(workflow, "add", x=2)
    assert [job.x for _, job in both()] == [1.0, 2.0]
    three = workflow.add.select().all("x = 2") & both & workflow.mult.select()
    assert [job.x for _, job in three()] == [2.0, 1.0, 2.0, 1.0]
    with pytest.raises(TypeError):
        workflow.mult.select() & [1]  # type: ignore[operator]


# ------------------------------------------------------------------ waiting for a selection


async def test_awaited_selection_that_is_not_empty_is_given_at_once(workflow: Workflow) -> None:
    expected = numbers(create_tasks(workflow, x=[1, 2]))
    with use(Session("it")):
        assert ids(await workflow.mult.select()) == expected


async def test_awaited_selection_waits_until_it_is_not_empty(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)

    async def wait() -> list[str]:
        return [run.state for run, _ in await workflow.mult.select("state = FINISHED")]

    found = await while_waiting(
        wait(),
        lambda: set_state(workflow, reference, "START"),
        lambda: set_state(workflow, reference, "FINISHED"),
    )
    assert found == ["FINISHED"]


async def test_awaited_all_waits_for_the_last(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, x=[1, 2])

    async def wait() -> list[int]:
        return ids(await workflow.mult.select().all("state = FINISHED"))

    found = await while_waiting(
        wait(),
        lambda: set_state(workflow, second, "FINISHED"),
        lambda: set_state(workflow, first, "FINISHED"),
    )
    assert found == numbers([first, second])


async def test_awaited_selection_sees_what_it_was_woken_for(workflow: Workflow, other: Workflow) -> None:
    """ZEO tells one connection after the other: the one of who waits may be the last."""
    (reference,) = create_tasks(workflow, x=1)
    database = workflow.mult.database
    index = database.index

    async def wait() -> int:
        with use(Session("it")):
            return len(await workflow.mult.select("state = FINISHED"))

    waiting = asyncio.create_task(wait())
    await settle()
    with half_told(database.db.storage, index._storage, partial(set_state, other, reference, "FINISHED")):
        await settle()
    assert waiting.done()
    assert await waiting == 1


async def test_awaited_and_is_woken_by_either_study(workflow: Workflow) -> None:
    async def wait() -> int:
        return len(await (workflow.mult.select() & workflow.add.select()))

    found = await while_waiting(
        wait(), lambda: create_tasks(workflow, "add", x=1), lambda: create_tasks(workflow, "mult", x=1)
    )
    assert found == 2


async def test_awaiting_a_selection_commits_what_was_done(workflow: Workflow) -> None:
    async def wait() -> None:
        workflow.add.createTask(x=1)
        await workflow.mult.select()

    def look() -> None:
        assert len(transact("look", workflow.add.select().exec)) == 1
        create_tasks(workflow, x=1)

    await while_waiting(wait(), look)


async def test_selection_can_be_awaited_in_the_default_session(workflow: Workflow) -> None:
    async def wait() -> list[int]:
        return [run.id for run, _ in await workflow.mult.select()]

    task = asyncio.ensure_future(wait())
    (reference,) = await asyncio.to_thread(create_tasks, workflow, x=1)
    assert await asyncio.wait_for(task, TIMEOUT_S) == numbers([reference])


# ------------------------------------------------------------------ waiting for created tasks


async def create_and_wait(workflow: Workflow, **parameters: Any) -> list[tuple[int, str]]:
    runs = workflow.mult.createTask(**parameters)
    assert ids(runs) == [runs[i][0].id for i in range(len(runs))]
    return [(run.id, run.state) for run, _ in await runs]


async def test_awaited_runs_are_given_when_all_are_done(workflow: Workflow) -> None:
    def finish(x: int, state: str) -> Callable[[], None]:
        def step() -> None:
            ((run_id),) = transact("look", lambda: ids(workflow.mult.select(f"x = {x}")))
            set_state(workflow, f"mult.{run_id}", state)

        return step

    found = await while_waiting(
        create_and_wait(workflow, x=[1, 2, 3]),
        finish(2, "FINISHED"),
        finish(1, "START"),
        finish(3, "FORWARDED"),  # of the user's own, later than FINISHED
        finish(1, "FINISHED"),
    )
    assert [state for _, state in found] == ["FINISHED", "FINISHED", "FORWARDED"]


async def test_no_runs_are_done_at_once(workflow: Workflow) -> None:
    with use(Session("it")):
        assert await create_and_wait(workflow, x=[]) == []


async def test_runs_that_are_done_already_are_given_at_once(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    set_state(workflow, reference, "FINISHED")
    with use(Session("it")):
        assert await create_and_wait(workflow, x=1) == [(*numbers([reference]), "FINISHED")]


async def test_failed_run_raises_with_everything_that_is_known(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    failure = {"reason": "EXIT_CODE", "exit_code": 3, "stderr": "line\n" * 20 + "no such file\n"}
    with pytest.raises(RunFailed) as raised:
        await while_waiting(
            create_and_wait(workflow, x=1),
            lambda: set_state(workflow, reference, "FAILED", motoko_failure=failure, run_path="/there"),
        )
    text = str(raised.value)
    assert f"{reference} is FAILED (EXIT_CODE, exit code 3) in /there:" in text
    assert "no such file" in text
    assert text.count("line\n") < 10
    assert "motoko clean" in text


async def test_run_that_failed_without_a_reason_raises_too(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with pytest.raises(RunFailed, match=f"{reference} is FAILURE"):
        await while_waiting(create_and_wait(workflow, x=1), lambda: set_state(workflow, reference, "FAILURE"))


async def test_ignored_failure_lets_the_waiter_go_on(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    found = await while_waiting(
        create_and_wait(workflow, x=1),
        lambda: set_state(workflow, reference, "FAILED", motoko_failure={"ignored": True}),
    )
    assert found == [(*numbers([reference]), "FAILED")]


async def test_run_that_is_tried_again_is_waited_for(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)

    def fail_and_retry() -> None:
        set_state(workflow, reference, "FAILED")
        set_state(workflow, reference, "CREATED")

    # Both commits happen while the loop looks the other way: the failure is over before the waiter sees it.
    async def wait() -> Any:
        runs = workflow.mult.createTask(x=1)
        waiter = asyncio.ensure_future(_of(runs))
        await asyncio.sleep(0)
        fail_and_retry()
        await asyncio.to_thread(set_state, workflow, reference, "FINISHED")
        return await waiter

    with use(Session("it")):
        assert ids(await asyncio.wait_for(wait(), TIMEOUT_S)) == numbers([reference])


async def _of(runs: Awaitable[Any]) -> Any:
    return await runs


async def test_deleted_run_is_an_error(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    (run_id,) = numbers([reference])

    def delete() -> None:
        del workflow.mult.base.runs[run_id]

    with pytest.raises(TaskError, match=f"{reference} was deleted while it was awaited"):
        await while_waiting(create_and_wait(workflow, x=1), lambda: transact("it", delete))


async def test_waiting_is_told_in_words(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    session = Session("it")

    async def wait() -> None:
        with use(session):
            await workflow.mult.createTask(x=1)

    task = asyncio.ensure_future(wait())
    while not session.waiting:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0)
    assert session.waiting == [f"{reference} to be done"]
    await asyncio.to_thread(set_state, workflow, reference, "FINISHED")
    await asyncio.wait_for(task, TIMEOUT_S)
    assert session.waiting == []


def test_run_list_is_a_sequence_of_pairs(workflow: Workflow) -> None:
    with use(Session("it")):
        runs = workflow.mult.createTask(x=[1, 2])
        assert len(runs) == 2
        assert [job.x for _, job in runs] == [1.0, 2.0]
        assert runs[-1][1].x == 2.0
        assert len(runs[:1]) == 1
        assert repr(runs) == f"<RunList mult.{runs[0][0].id}, mult.{runs[1][0].id}>"
