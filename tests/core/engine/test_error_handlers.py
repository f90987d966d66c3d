"""What becomes of failed runs: handlers by name, handlers that are functions, and who awaits the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from motoko_core.engine.failures import aborting
from motoko_core.engine.firing import no_action
from motoko_core.errors import ActionError, ConfigError, RunFailed, WorkflowAborted
from motoko_core.interfaces import Decision, ErrorHandler, Failure, Ignore, Retry, RunChange
from motoko_core.session import Session, transact, use
from motoko_core.study.changes import Batch
from motoko_core.study.feed import feed_of
from motoko_core.workflow import Workflow
from tests.conftest import MOTOKO_YAML, create_tasks, orchestrate, set_state, states
from tests.driving import Clock, Firings, ids, play, settle, until
from tests.zeo_clients import half_told

REASON = {"reason": "EXIT_CODE", "exit_code": 3, "attempt": 1, "stderr": "it broke"}


def fail(workflow: Workflow, reference: str, **entries: Any) -> None:
    set_state(workflow, reference, "FAILED", **{"motoko_failure": dict(REASON), **entries})


def entries(workflow: Workflow, reference: str) -> dict[str, Any]:
    return transact("the test", lambda: dict(next(iter(workflow.get_runs([reference]).values()))[0].entries))


# --------------------------------------------------------------------------- functions


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("awaited", [True, False])
async def test_a_function_is_called_and_then_the_workflow_ends(
    workflow: Workflow, kind: str, awaited: bool
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    seen: list[Any] = []

    def handle(workflow: Workflow, runs: Any) -> None:
        seen.extend(run.id for run, _ in runs)
        workflow.add.createTask(x=9.0)

    async def handle_later(workflow: Workflow, runs: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        handle(workflow, runs)

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=handle if kind == "sync" else handle_later)
        asyncio.get_running_loop().call_soon(fail, workflow, task)
        if awaited:
            await workflow.mult.createTask(x=1.0)
        else:
            await asyncio.Event().wait()

    with pytest.raises(WorkflowAborted, match=rf"ended the workflow.*{task} is FAILED") as caught:
        await orchestrate(workflow, main)
    assert "handle" in caught.value.message
    assert caught.value.exit_code == 1
    assert seen == ids([task])
    assert len(states(workflow, "add")) == 1


async def test_several_functions_live_side_by_side(workflow: Workflow) -> None:
    (mult,) = create_tasks(workflow, "mult", x=1.0)
    (add,) = create_tasks(workflow, "add", x=1.0)
    called: list[str] = []

    def make(name: str) -> Callable[..., Any]:
        async def handle() -> None:
            await asyncio.sleep(0.01)
            called.append(name)

        return handle

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=make("one"))
        workflow.add_error_handler(f=make("two"))
        workflow.add_error_handler(task="add", f=make("add"))
        workflow.add_error_handler(task="plus", f=make("plus"))
        workflow.add_error_handler(task="mult", f=make("mult"), event="state = BROKEN")
        assert {t: list(a) for t, a in workflow.actions.items()} == {
            "__all__": ["error_handler", "error_handler_2"],
            "add": ["error_handler", "error_handler_2"],
            "mult": ["error_handler"],
        }
        fail(workflow, add)
        await asyncio.Event().wait()

    with pytest.raises(WorkflowAborted):
        await orchestrate(workflow, main)
    assert sorted(called) == ["add", "one", "plus", "two"]
    del mult


async def test_f_may_be_omitted(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler()
        fail(workflow, task)

    with pytest.raises(WorkflowAborted, match=r"ended the workflow: .*exit code 3"):
        await orchestrate(workflow, main)


async def test_each_of_several_failed_tasks_has_its_own_lines_up_to_ten(workflow: Workflow) -> None:
    tasks = create_tasks(workflow, x=[float(n) for n in range(12)])
    for task in tasks:
        fail(workflow, task)
    with use(Session("it")):
        runs = workflow.mult.select("state = FAILED")
        with pytest.raises(WorkflowAborted) as caught:
            await aborting(no_action)(task_manager=workflow.mult, runs=runs)
    first, *others = [line for line in caught.value.message.splitlines() if not line.startswith("    ")]
    assert first.startswith(f"failed runs ended the workflow: {tasks[0]} is FAILED")
    assert [line.partition(" is ")[0] for line in others] == [
        *(f"  {t}" for t in tasks[1:10]),
        "  and 2 more",
    ]


async def test_a_function_for_one_task_manager_leaves_the_others_alone(
    workflow: Workflow, clock: Clock
) -> None:
    (task,) = create_tasks(workflow, "mult", x=1.0)
    handler = Firings()

    async def script() -> None:
        workflow.add_error_handler(task="add", f=handler)
        fail(workflow, task)
        await clock.tick(2)

    await play(workflow, script)
    assert handler.take() == []


def test_a_function_that_cannot_be_called_is_refused(workflow: Workflow) -> None:
    with pytest.raises(ConfigError):
        workflow.add_error_handler(f=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no error handler 'retri'"):
        workflow.add_error_handler(f="retri")


async def test_a_failure_that_the_index_hears_of_first_is_decided(
    workflow: Workflow, other: Workflow, clock: Clock
) -> None:
    """ZEO tells one connection after the other: the handlers' own may be the last."""
    (task,) = create_tasks(workflow, x=1.0)
    asked: list[int] = []

    class Handler(ErrorHandler):
        def decide(self, failure: Failure) -> Decision:
            asked.append(failure.run_id)
            return Ignore()

    async def script() -> None:
        workflow.add_error_handler(f=Handler())
        await settle()
        database = workflow.mult.database
        with half_told(database.db.storage, database.index._storage, lambda: fail(other, task)):
            await settle()
        await settle()
        assert asked == ids([task])

    await play(workflow, script)
    assert entries(workflow, task)["motoko_failure"]["ignored"]


async def test_a_run_that_was_reset_before_the_handlers_were_asked_is_not_decided(
    workflow: Workflow, clock: Clock
) -> None:
    """It may fail again before the engine hears of either: who awaits it then is to wait for them."""
    (task,) = create_tasks(workflow, x=1.0)
    (run_id,) = ids([task])

    class Handler(ErrorHandler):
        def decide(self, failure: Failure) -> Decision:
            raise AssertionError(failure)

    async def script() -> None:
        workflow.add_error_handler(f=Handler())
        handlers, manager = workflow._engine.handlers, workflow.task_managers["mult"]
        handlers.take_in(manager, Batch(changes=(RunChange(run_id=run_id, before="START", after="FAILED"),)))
        assert handlers.is_undecided(manager, run_id, (1, ""))

    await play(workflow, script)


# --------------------------------------------------------------------------- awaiting


async def test_awaiting_a_failed_run_raises(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    async def main(workflow: Workflow) -> None:
        asyncio.get_running_loop().call_soon(fail, workflow, task)
        await workflow.mult.createTask(x=1.0)

    with pytest.raises(ActionError, match="it broke") as caught:
        await orchestrate(workflow, main)
    assert isinstance(caught.value.__cause__, RunFailed)
    assert task in caught.value.message
    assert __file__ in str(caught.value.where)


@pytest.mark.parametrize("registered", ["before", "in main"])
async def test_who_awaits_a_run_that_is_retried_gets_its_result(workflow: Workflow, registered: str) -> None:
    attempts: list[int] = []

    async def main(workflow: Workflow) -> None:
        if registered == "in main":
            workflow.add_error_handler(f="retry", max_attempts=4)
        runs = workflow.mult.createTask(x=1.0)
        ((run, _job),) = runs
        reference = f"mult.{run.id}"
        launcher = asyncio.create_task(launch(reference))
        ((run, _job),) = await runs
        assert run.state == "FINISHED"
        await launcher

    async def launch(reference: str) -> None:
        (number,) = ids([reference])
        for _ in range(3):
            await until(lambda: states(workflow).get(number) == "CREATED")
            attempts.append((entries(workflow, reference).get("motoko_failure") or {}).get("attempt", 1))
            fail(workflow, reference, motoko_failure={**REASON, "attempt": attempts[-1]})
        await until(lambda: states(workflow).get(number) == "CREATED")
        set_state(workflow, reference, "FINISHED")

    if registered == "before":
        workflow.add_error_handler(f="retry", max_attempts=4)
    await orchestrate(workflow, main)
    assert attempts == [1, 2, 3]


async def test_who_awaits_an_ignored_failure_goes_on(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    handler = Firings()

    async def script() -> None:
        workflow.add_error_handler(f="ignore")
        workflow.add_error_handler(f=handler)
        asyncio.get_running_loop().call_soon(fail, workflow, task)
        ((run, _job),) = await workflow.mult.createTask(x=1.0)
        assert run.state == "FAILED"
        await clock.tick(2)

    await play(workflow, script)
    assert handler.take() == []


async def test_an_unhandled_failure_may_be_caught(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    async def main(workflow: Workflow) -> None:
        fail(workflow, task)
        with pytest.raises(RunFailed, match="exit code 3"):
            await workflow.mult.createTask(x=1.0)
        workflow.add.createTask(x=1.0)

    await orchestrate(workflow, main)
    assert len(states(workflow, "add")) == 1


async def test_handlers_are_asked_once_about_an_execution_whose_reason_is_written_late(
    workflow: Workflow, clock: Clock
) -> None:
    """Its script has said that it failed, while no launcher was there to hear of its end."""
    (task,) = create_tasks(workflow, x=1.0)
    told: list[str] = []

    class Noting(ErrorHandler):
        def decide(self, failure: Failure) -> None:
            told.append(failure.reason)

    async def script() -> None:
        set_state(workflow, task, "FAILED", motoko_handle='{"tag": "motoko-a"}')
        await settle()
        await clock.advance(10)
        assert told == ["UNKNOWN"]
        fail(workflow, task, motoko_handle="", motoko_failure={**REASON, "tag": "motoko-a"})
        await settle()

    workflow.add_error_handler(f=Noting())
    await play(workflow, script)
    assert told == ["UNKNOWN"]


async def test_the_failure_of_another_execution_is_another_one(workflow: Workflow, clock: Clock) -> None:
    """Who stood still while the run was reset and failed again hears of one change, from FAILED to FAILED."""
    (task,) = create_tasks(workflow, x=1.0)
    told: list[str] = []

    class Noting(ErrorHandler):
        def decide(self, failure: Failure) -> None:
            told.append(failure.stderr)

    async def script() -> None:
        for tag in ("motoko-a", "motoko-a", "motoko-b"):
            fail(workflow, task, motoko_failure={**REASON, "tag": tag, "stderr": tag}, note=f"{len(told)}")
            await settle()

    workflow.add_error_handler(f=Noting())
    await play(workflow, script)
    assert told == ["motoko-a", "motoko-b"]


# --------------------------------------------------------------------------- earlier failures


@pytest.mark.parametrize("registered", ["before", "in main"])
async def test_a_failure_from_before_the_start_is_handled(workflow: Workflow, registered: str) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fail(workflow, task)

    async def main(workflow: Workflow) -> None:
        if registered == "in main":
            workflow.add_error_handler(f="retry")
        loop = asyncio.get_running_loop()
        loop.call_soon(set_state, workflow, task, "FINISHED")
        await workflow.mult.createTask(x=1.0)

    if registered == "before":
        workflow.add_error_handler(f="retry")
    await orchestrate(workflow, main)
    assert entries(workflow, task)["motoko_failure"]["attempt"] == 2


async def test_a_failure_from_before_the_start_reaches_a_function_although_main_awaits_it(
    workflow: Workflow,
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fail(workflow, task)
    handler = Firings()

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=handler)
        await workflow.mult.createTask(x=1.0)

    with pytest.raises(WorkflowAborted):
        await orchestrate(workflow, main)
    assert handler.take() == [ids([task])]


async def test_an_early_abort_calls_no_user_code(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fail(workflow, task)
    workflow.add_error_handler(f="abort")
    called: list[int] = []

    async def main(workflow: Workflow) -> None:
        called.append(1)

    with pytest.raises(WorkflowAborted, match=task):
        await orchestrate(workflow, main)
    assert called == []


async def test_failures_of_another_run_name_are_left_alone(workflow: Workflow, clock: Clock) -> None:
    mine = workflow.run_name
    workflow.run_name = f"{mine}-other"
    (other,) = create_tasks(workflow, x=1.0)
    fail(workflow, other)
    workflow.run_name = mine
    workflow.add_error_handler(f="abort")

    async def script() -> None:
        await settle()

    await play(workflow, script)
    assert entries(workflow, other)["state"] == "FAILED"


# --------------------------------------------------------------------------- motoko.yaml


async def test_handlers_of_motoko_yaml(make_workflow: Any) -> None:
    yaml = MOTOKO_YAML + (
        "error_handlers:\n"
        "- escalate: {steps: [{nproc: 4}], reasons: [TIMEOUT]}\n"
        "- retry: {max_attempts: 2, delay_s: 60, reasons: [EXIT_CODE]}\n"
        "- ignore: {reasons: [CANCELLED]}\n"
        "- abort\n"
    )
    workflow = make_workflow(yaml=yaml)
    workflow.create(validated=True)
    workflow.run_name = "handlers"
    slow, broken, cancelled, lost = create_tasks(workflow, x=[1.0, 2.0, 3.0, 4.0])

    def fail_with(task: str, reason: str, attempt: int = 1) -> None:
        fail(workflow, task, motoko_failure={"reason": reason, "attempt": attempt})

    async def script() -> None:
        fail_with(slow, "TIMEOUT")
        fail_with(broken, "EXIT_CODE")
        fail_with(cancelled, "CANCELLED")
        await settle()
        now = {task: entries(workflow, task) for task in (slow, broken, cancelled)}
        assert [row["state"] for row in now.values()] == ["CREATED", "CREATED", "FAILED"]
        assert now[slow]["nproc"] == 4
        assert now[slow]["motoko_failure"]["attempt"] == now[broken]["motoko_failure"]["attempt"] == 2
        assert "motoko_not_before" not in now[slow]
        assert now[broken]["motoko_not_before"] > 0
        assert now[cancelled]["motoko_failure"]["ignored"] is True
        fail_with(broken, "EXIT_CODE", attempt=2)
        await asyncio.Event().wait()

    with pytest.raises(WorkflowAborted, match=f"{broken}.*attempt 2"):
        await play(workflow, script)
    set_state(workflow, broken, "CREATED")

    async def lost_one() -> None:
        fail_with(lost, "LOST")
        await asyncio.Event().wait()

    with pytest.raises(WorkflowAborted, match=f"{lost}.*LOST"):
        await play(workflow, lost_one)


async def test_handlers_are_asked_in_order_until_one_answers(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    asked: list[tuple[str, Failure]] = []

    class Handler(ErrorHandler):
        def __init__(self, name: str, answer: Decision) -> None:
            self.name, self.answer = name, answer

        def decide(self, failure: Failure) -> Decision:
            asked.append((self.name, failure))
            return self.answer

    for name, answer in [("silent", None), ("ignores", Ignore()), ("never asked", Ignore())]:
        workflow.add_error_handler(f=Handler(name, answer))

    async def script() -> None:
        fail(workflow, task)
        await settle()

    await play(workflow, script)
    assert [name for name, _ in asked] == ["silent", "ignores"]
    failure = asked[0][1]
    assert (failure.task, failure.task_manager, failure.state) == (task, "mult", "FAILED")
    assert (failure.reason, failure.exit_code, failure.attempt) == ("EXIT_CODE", 3, 1)
    assert failure.stderr == "it broke"


async def test_a_run_that_was_retried_and_failed_again_between_two_looks_is_decided_about_again(
    workflow: Workflow,
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    attempts: list[int] = []
    held: list[Callable[[], None]] = []

    class Twice(ErrorHandler):
        def decide(self, failure: Failure) -> Decision:
            attempts.append(failure.attempt)
            return Retry() if failure.attempt == 1 else Ignore()

    async def script() -> None:
        workflow.add_error_handler(f=Twice())
        await settle()
        feed = feed_of(workflow.mult.database)
        feed._later = lambda _seconds, over: held.append(over)  # the feed looks when we say so
        fail(workflow, task)
        await until(lambda: attempts)
        assert entries(workflow, task)["state"] == "CREATED"
        set_state(workflow, task, "FAILED")
        held.pop()()
        await until(lambda: len(attempts) == 2)
        feed._later = asyncio.get_running_loop().call_later
        held.pop()()

    await play(workflow, script)
    assert attempts == [1, 2]
