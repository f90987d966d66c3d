"""Exceptions in user code end the workflow, undo what was not committed, and say where they came from."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from motoko_core.errors import ActionError, ConfigError, MotokoError
from motoko_core.interfaces import Failure, WorkflowCondition
from motoko_core.session import transact
from motoko_core.workflow import Workflow, event
from tests.conftest import create_tasks, orchestrate, set_state, states
from tests.driving import Clock, Firings, settle


class Boom(Exception):
    pass


def boom(*args: Any, **kwargs: Any) -> Any:
    raise Boom("it broke")


BOOM_LINE = f"{__file__}:{inspect.getsourcelines(boom)[1] + 1}"


def variable(workflow: Workflow) -> str:
    return f"v_{workflow.run_name}".replace("-", "_")


def leave_traces(workflow: Workflow) -> Any:
    """Write into both studies and the variables."""
    workflow.mult.createTask(x=100.0)
    workflow.add.createTask(x=100.0)
    setattr(workflow.vars, variable(workflow), "written")


def assert_no_traces(workflow: Workflow, runs: int = 1) -> None:
    assert len(states(workflow, "mult")) == runs
    assert states(workflow, "add") == {}
    assert not transact("the test", lambda: hasattr(workflow.vars, variable(workflow)))


def has_failed(error: ActionError, *parts: str) -> None:
    for part in (*parts, "Boom: it broke"):
        assert part in error.message
    assert error.where == BOOM_LINE
    assert isinstance(error.__cause__, Boom)
    assert error.exit_code == 1


async def test_in_main(workflow: Workflow) -> None:
    async def main(workflow: Workflow) -> None:
        leave_traces(workflow)
        boom()

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "main")
    assert_no_traces(workflow, 0)


def test_execute_raises(workflow: Workflow) -> None:
    def main(workflow: Workflow) -> None:
        boom()

    workflow.orchestrator_function = main
    with pytest.raises(ActionError) as caught:
        workflow.execute()
    has_failed(caught.value, "main")


@pytest.mark.parametrize("decorated", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_in_a_callback(workflow: Workflow, kind: str, decorated: bool) -> None:
    (task,) = create_tasks(workflow, x=1.0)

    def fails(workflow: Workflow) -> None:
        leave_traces(workflow)
        boom()

    async def fails_later(workflow: Workflow) -> None:
        leave_traces(workflow)
        await asyncio.sleep(0)
        boom()

    f: Any = fails if kind == "sync" else fails_later

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event="state = CREATED", f=event(f) if decorated else f)

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "'it'", "mult", task)
    assert_no_traces(workflow)


CONDITIONS: dict[str, Any] = {
    "run filter": lambda run, job: boom(),
    "workflow filter": lambda workflow, task_manager: leave_traces(workflow) or boom(),
    "no parameter": lambda: boom(),
}


@pytest.mark.parametrize("form", CONDITIONS)
async def test_in_a_condition(workflow: Workflow, form: str) -> None:
    create_tasks(workflow, x=1.0)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=CONDITIONS[form], f=Firings())

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "'it'", "mult")
    assert_no_traces(workflow)


async def test_in_a_condition_that_is_evaluated_for_the_second_task_manager(workflow: Workflow) -> None:
    fired = False

    def fails_later(workflow: Workflow, task_manager: Any) -> bool:
        return boom() if fired else True

    def note() -> None:
        nonlocal fired
        fired = True

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", event=fails_later, f=note)

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "'it'")


async def test_in_get_params(workflow: Workflow) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=lambda: True, f=Firings(), get_params=boom)

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "'it'", "mult")


@pytest.mark.parametrize("when", ["before", "while"])
async def test_in_an_error_handler(workflow: Workflow, when: str) -> None:
    from motoko_core.interfaces import Decision, ErrorHandler

    class Broken(ErrorHandler):
        def decide(self, failure: Failure) -> Decision:
            return boom()  # type: ignore[no-any-return]

    (task,) = create_tasks(workflow, x=1.0)
    if when == "before":
        set_state(workflow, task, "FAILED")
    workflow.add_error_handler(f=Broken())

    async def main(workflow: Workflow) -> None:
        await settle()
        set_state(workflow, task, "FAILED")
        await asyncio.Event().wait()

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "error handler")


async def test_in_an_error_handler_function(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FAILED")

    async def main(workflow: Workflow) -> None:
        workflow.add_error_handler(f=boom)

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "'error_handler'", task)


async def test_an_error_of_motokos_own_keeps_its_hint_and_exit_code(workflow: Workflow) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mutl", event=lambda: True, f=Firings())

    with pytest.raises(ActionError, match="no task manager 'mutl'") as caught:
        await orchestrate(workflow, main)
    line = inspect.getsourcelines(main)[1] + 1
    assert caught.value.where == f"{__file__}:{line}"
    assert "Did you mean 'mult'?" in str(caught.value)
    assert caught.value.exit_code == 2
    assert isinstance(caught.value.__cause__, ConfigError)


async def test_an_error_in_one_place_undoes_what_is_under_way_elsewhere(workflow: Workflow) -> None:
    create_tasks(workflow, x=1.0)
    begun = asyncio.Event()
    undone = []

    async def works(workflow: Workflow) -> None:
        leave_traces(workflow)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            undone.append("cleaned up")

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=works)
        await begun.wait()
        boom()

    with pytest.raises(ActionError) as caught:
        await orchestrate(workflow, main)
    has_failed(caught.value, "main")
    assert undone == ["cleaned up"]
    assert_no_traces(workflow)


async def test_user_code_that_swallows_its_cancellation_commits_nothing(workflow: Workflow) -> None:
    create_tasks(workflow, x=1.0)
    begun = asyncio.Event()

    async def stubborn(workflow: Workflow) -> None:
        leave_traces(workflow)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def main(workflow: Workflow) -> None:
        workflow.add_action("works", task="mult", event=lambda: True, f=stubborn)
        await begun.wait()
        boom()

    with pytest.raises(ActionError):
        await orchestrate(workflow, main)
    assert_no_traces(workflow)


@pytest.mark.parametrize("where", ["main", "a callback"])
async def test_a_cancellation_that_nobody_asked_for_is_an_error(workflow: Workflow, where: str) -> None:
    async def cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main(workflow: Workflow) -> None:
        if where == "main":
            await cancelled()
        workflow.add_action("it", task="mult", event=lambda: True, f=cancelled)

    with pytest.raises(ActionError, match="cancelled by what it awaited"):
        await orchestrate(workflow, main)


async def test_a_condition_that_gives_a_coroutine_is_an_error(workflow: Workflow) -> None:
    async def always(workflow: Workflow) -> bool:
        return True

    condition = WorkflowCondition(description="x", evaluate=lambda w, m: always(w))

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=condition, f=Firings())

    with pytest.raises(ActionError, match="gave a coroutine"):
        await orchestrate(workflow, main)


async def test_a_condition_that_gives_something_else_than_pairs_is_an_error(workflow: Workflow) -> None:
    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=lambda workflow, task_manager: [1, 2], f=Firings())

    with pytest.raises(ActionError, match="a list with 1 in it"):
        await orchestrate(workflow, main)


# --------------------------------------------------------------------------- registration


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


async def coroutine() -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "nope", "event": "state = FINISHED", "f": print}, "no task manager 'nope'"),
        ({"event": 3, "f": print}, "none of the forms"),
        ({"event": None, "f": print}, "none of the forms"),
        ({"event": lambda a, b: True, "f": print}, "none of the forms"),
        ({"event": coroutine, "f": print}, "coroutine function"),
        ({"event": "stat = FINISHED", "f": print}, "stat"),
        ({"event": "state = ", "f": print}, "state"),
        ({"event": "", "f": print}, "without content"),
        ({"event": ["state = FINISHED", 3], "f": print}, "item 2"),
        ({"event": "state = FINISHED"}, "no callback"),
        ({"event": "state = FINISHED", "f": "print"}, "no callback"),
        ({"event": "state = FINISHED", "f": generator}, "generator"),
        ({"event": "state = FINISHED", "f": async_generator}, "generator"),
        ({"event": "state = FINISHED", "f": event(generator)}, "generator"),
    ],
)
def test_a_registration_that_cannot_work(workflow: Workflow, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow.add_action("it", **arguments)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    line = inspect.getsourcelines(test_a_registration_that_cannot_work)[1] + 20
    assert isinstance(caught.value, MotokoError)
    place = str(caught.value).partition(": ")[0]
    assert place.startswith(f"{__file__}:")
    assert abs(int(place.partition(", ")[0].rpartition(":")[2]) - line) < 10
    assert not any(workflow.actions.values())


async def test_a_condition_that_writes_and_loses_is_asked_again(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    asked = 0

    def writes(workflow: Workflow, task_manager: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked > 2:
            return False
        ((run, _job),) = task_manager.select()
        run.entries["note"] = "the condition"
        if asked == 1:
            set_state(workflow, task, "CREATED", note="somebody else")
        return asked == 2

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=writes, f=finish)

    def finish(workflow: Workflow) -> None:
        workflow.finished = True

    await orchestrate(workflow, main)
    assert asked >= 2
