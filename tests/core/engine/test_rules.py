"""When an action fires: the rules of evaluation and of firing again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from motoko_core.engine.actions import Action
from motoko_core.engine.watch import Registration, Watch
from motoko_core.interfaces import RunCondition, WorkflowCondition
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state
from tests.driving import Clock, Firings, ids, play, settle

# --------------------------------------------------------------------------- rule 1


async def test_a_condition_is_evaluated_when_a_run_changed(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        await settle()
        assert fired.take() == []
        set_state(workflow, task, "FINISHED")
        await settle()
        assert fired.take() == [ids([task])]

    await play(workflow, script)


async def test_a_condition_is_evaluated_when_a_variable_changed(workflow: Workflow, clock: Clock) -> None:
    name = f"go_{workflow.run_name}".replace("-", "_")
    fired = Firings()

    async def script() -> None:
        workflow.add_action(
            "go", task="mult", event=lambda workflow, task_manager: hasattr(workflow.vars, name), f=fired
        )
        await settle()
        assert fired.take() == []
        transact("the test", lambda: setattr(workflow.vars, name, 1))
        await settle()
        assert fired.take() == ["mult"]

    await play(workflow, script)


async def test_a_workflow_filter_is_not_evaluated_while_nothing_changes(
    workflow: Workflow, clock: Clock
) -> None:
    calls = []

    async def script() -> None:
        workflow.add_action(
            "never", task="mult", event=lambda workflow, task_manager: calls.append(1), f=Firings()
        )
        await settle()
        before = len(calls)
        for _ in range(3):
            workflow._engine.wake()
            await settle()
        assert len(calls) == before

    await play(workflow, script)


async def test_a_condition_on_the_outside_is_evaluated_on_each_tick(workflow: Workflow, clock: Clock) -> None:
    outside = False
    calls = []
    fired = Firings()

    def looks_outside() -> bool:
        calls.append(clock.now)
        return outside

    async def script() -> None:
        nonlocal outside
        workflow.add_action("outside", task="mult", event=looks_outside, f=fired)
        await settle()
        calls.clear()
        await clock.tick(3)
        assert len(calls) == 3
        assert fired.take() == []
        outside = True
        await settle()
        assert fired.take() == []
        await clock.tick()
        assert fired.take() == ["mult"]

    await play(workflow, script)


# --------------------------------------------------------------------------- rule 2


async def test_a_run_filter_is_asked_about_the_runs_that_changed(workflow: Workflow, clock: Clock) -> None:
    tasks = create_tasks(workflow, x=[1.0, 2.0, 3.0, 4.0])
    asked: list[int] = []

    def unwanted(run: Any, job: Any) -> bool:
        asked.append(run.id)
        return False

    async def script() -> None:
        workflow.add_action("never", task="mult", event=unwanted, f=Firings())
        await settle()
        assert sorted(asked) == ids(tasks)
        asked.clear()
        set_state(workflow, tasks[2], "START")
        await settle()
        assert asked == ids([tasks[2]])

    await play(workflow, script)


def test_what_a_change_costs_does_not_grow_with_the_tasks_that_match(workflow: Workflow) -> None:
    class Counting(set[Any]):
        """A set that nobody may walk through or copy."""

        def __iter__(self) -> Any:
            raise AssertionError("walked through all tasks that match")

        __or__ = __and__ = __sub__ = __rsub__ = __iter__  # type: ignore[assignment]

    (task,) = create_tasks(workflow, x=1.0)
    (number,) = ids([task])
    action = Action(
        event_name="done",
        task="mult",
        event="state = CREATED",
        f=print,
        once_per_run=True,
        condition=RunCondition(description="", constraints=("state = CREATED",)),
        constraints={"mult": workflow.mult.constraint(["state = CREATED"])},
    )
    watch = Watch(action, workflow.mult, Registration())
    watch.registration.watches["mult"] = watch
    watch.look_at_runs(())
    done = {("mult", 10**9 + i) for i in range(1000)}
    watch.registration.marked = Counting(done)
    watch.matching = Counting(watch.matching | done)
    watch.look_at_runs([number])
    assert watch.has_more()
    ready = watch.ready(1.0)
    assert ready == {("mult", number)}
    watch.begin_firing(ready, 2.0)
    watch.end_firing(ready)
    assert watch.ready(2.0) == ready
    set_state(workflow, task, "START")
    watch.look_at_runs([number])
    assert not watch.has_more()


# --------------------------------------------------------------------------- rule 3


async def test_firings_over_disjoint_tasks_overlap(workflow: Workflow, clock: Clock) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    release = asyncio.Event()
    begun: list[list[int]] = []

    async def slow(runs: Any) -> None:
        begun.append([run.id for run, _ in runs])
        await release.wait()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=slow)
        set_state(workflow, first, "FINISHED")
        await settle()
        set_state(workflow, second, "FINISHED")
        await settle()
        assert begun == [ids([first]), ids([second])]
        release.set()

    await play(workflow, script)


async def test_a_task_is_never_in_two_firings_of_an_action(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    release = asyncio.Event()
    begun: list[list[int]] = []

    async def slow(runs: Any) -> None:
        begun.append([run.id for run, _ in runs])
        await release.wait()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=slow)
        set_state(workflow, task, "FINISHED")
        await settle()
        set_state(workflow, task, "FINISHED", note="changed")
        await clock.tick(3)
        # Registered again, under the same name: still the same action.
        workflow.add_action("done", task="mult", event="state = FINISHED", f=slow)
        await clock.tick(3)
        assert begun == [ids([task])]
        release.set()
        await settle()
        assert begun == [ids([task])] * 2

    await play(workflow, script)


async def test_two_actions_may_have_the_same_task_at_once(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")
    begun: list[str] = []
    release = asyncio.Event()

    async def slow(runs: Any, event_name: str) -> None:
        begun.append(event_name)
        await release.wait()

    async def script() -> None:
        workflow.add_action("one", task="mult", event="state = FINISHED", f=slow)
        workflow.add_action("two", task="mult", event="state = FINISHED", f=slow)
        await settle()
        assert begun == ["one", "two"]
        release.set()

    await play(workflow, script)


async def test_a_selection_that_every_task_manager_gives_fires_once(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("all", event=lambda workflow, task_manager: workflow.mult.select(), f=fired)
        await settle()
        assert fired.take() == [ids([task])]
        await clock.tick(2)
        assert fired.take() == [ids([task])] * 2

    await play(workflow, script)


async def test_a_task_that_no_longer_matches_when_its_turn_comes_is_left_out(
    workflow: Workflow, clock: Clock
) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    fired = Firings()

    def takes_away(runs: Any) -> None:
        set_state(workflow, first, "TAKEN")

    async def script() -> None:
        for task in (first, second):
            set_state(workflow, task, "FINISHED")
        workflow.add_action("takes", task="mult", event="state = FINISHED", f=takes_away)
        workflow.add_action("gets", task="mult", event="state = FINISHED", f=fired)
        await settle()
        assert fired.take() == [ids([second])]

    await play(workflow, script)


# --------------------------------------------------------------------------- rule 4


async def test_a_gained_task_fires_at_once_and_the_others_once_per_poll_interval(
    workflow: Workflow, clock: Clock
) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    fired = Firings()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        set_state(workflow, first, "FINISHED")
        await settle()
        assert fired.take() == [ids([first])]
        set_state(workflow, first, "FINISHED", note="a change that gains nothing")
        await settle()
        assert fired.take() == []
        await clock.advance(0.9 * workflow.configuration.poll_interval)
        assert fired.take() == []
        set_state(workflow, second, "FINISHED")
        await settle()
        assert fired.take() == [ids([first, second])]
        await clock.advance(0.5 * workflow.configuration.poll_interval)
        assert fired.take() == []
        await clock.advance(0.5 * workflow.configuration.poll_interval)
        assert fired.take() == [ids([first, second])]

    await play(workflow, script)


async def test_a_task_that_left_and_came_back_fires_at_once(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        for _ in range(2):
            set_state(workflow, task, "FINISHED")
            await settle()
            assert fired.take() == [ids([task])]
            set_state(workflow, task, "CREATED")
            await settle()

    await play(workflow, script)


async def test_a_task_that_came_back_between_two_looks_is_not_lost(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        set_state(workflow, task, "FINISHED")
        await settle()
        set_state(workflow, task, "CREATED")
        set_state(workflow, task, "FINISHED")
        await settle()
        await clock.tick()
        assert fired.take() == [ids([task])] * 2

    await play(workflow, script)


async def test_a_callback_that_moves_the_state_on_fires_once(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired: list[int] = []

    async def forward(runs: Any) -> None:
        for run, _job in runs:
            fired.append(run.id)
            run.state = "FORWARDED"

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=forward)
        set_state(workflow, task, "FINISHED")
        await settle()
        await clock.tick(3)
        assert fired == ids([task])

    await play(workflow, script)


# --------------------------------------------------------------------------- rule 6


async def test_an_action_that_awaits_for_ever_holds_nothing_up(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    async def waits(workflow: Workflow) -> None:
        await workflow.add.createTask(x=1.0)

    async def script() -> None:
        workflow.add_action("waits", task="mult", event="state = CREATED", f=waits, once_per_run=True)
        workflow.add_action("boolean", task="mult", event=lambda: True, f=fired)
        workflow.add_action("done", task="mult", event="state = FINISHED", f=fired)
        await settle()
        assert fired.take() == ["mult"]
        set_state(workflow, task, "FINISHED")
        await settle()
        assert fired.take() == [ids([task])]
        await clock.tick()
        assert sorted(fired.take(), key=str) == sorted(["mult", ids([task])], key=str)

    await play(workflow, script)


# --------------------------------------------------------------------------- registration


async def test_an_action_that_was_replaced_or_removed_does_not_fire(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")
    old, new = Firings(), Firings()

    async def script() -> None:
        workflow.add_action("done", task="mult", event="state = FINISHED", f=old)
        await settle()
        assert old.take() == [ids([task])]
        workflow.add_action("done", task="mult", event="state = FINISHED", f=new)
        await clock.tick(2)
        assert old.take() == []
        assert new.take() == [ids([task])] * 2
        del workflow.actions["mult"]["done"]
        await clock.tick(2)
        assert new.take() == []

    await play(workflow, script)


async def test_an_action_may_be_registered_in_a_callback(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    def register(workflow: Workflow) -> None:
        workflow.add_action("late", task="mult", event="state = CREATED", f=fired)

    async def script() -> None:
        workflow.add_action("early", task="mult", event="state = CREATED", f=register, once_per_run=True)
        await settle()
        assert fired.take() == [ids([task])]

    await play(workflow, script)


async def test_tasks_of_another_run_name_never_fire(workflow: Workflow, clock: Clock) -> None:
    mine = workflow.run_name
    workflow.run_name = f"{mine}-other"
    (other,) = create_tasks(workflow, x=1.0)
    workflow.run_name = mine
    fired = Firings()

    async def script() -> None:
        workflow.add_action("constraint", task="mult", event="state = FINISHED", f=fired)
        workflow.add_action("filter", task="mult", event=lambda run, job: True, f=fired)
        workflow.add_action(
            "selection", task="mult", event=lambda workflow, task_manager: task_manager.select(), f=fired
        )
        await settle()
        set_state(workflow, other, "FINISHED")
        await clock.tick(2)
        assert fired.take() == []

    await play(workflow, script)


FORMS: dict[str, Any] = {
    "run filter": lambda run, job: run.state == "FINISHED",
    "workflow filter": lambda workflow, task_manager: bool(task_manager.select("state = FINISHED")),
    "selection": lambda workflow, task_manager: task_manager.select("state = FINISHED"),
    "all": lambda workflow, task_manager: task_manager.select().all("state = FINISHED"),
    "no parameter": lambda: True,
    "constraint": "state = FINISHED",
    "constraints": ["jobs.x > 0.5", "state = FINISHED"],
    "condition": WorkflowCondition(
        description="a finished task", evaluate=lambda w, m: bool(m.select("state = FINISHED"))
    ),
}
BOOLEAN = {"workflow filter", "no parameter", "condition"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["__all__", "plus"])
async def test_every_form_of_event(workflow: Workflow, clock: Clock, form: str, task: str) -> None:
    (mult,) = create_tasks(workflow, "mult", x=1.0)
    (add,) = create_tasks(workflow, "add", x=1.0)
    fired = Firings()

    async def script() -> None:
        workflow.add_action("it", task=task, event=FORMS[form], f=fired)
        await settle()
        assert form == "no parameter" or fired.take() == []
        for reference in (mult, add):
            set_state(workflow, reference, "FINISHED")
        await settle()
        on_add = "add" if form in BOOLEAN else ids([add])
        on_mult = "mult" if form in BOOLEAN else ids([mult])
        expected = [on_add] if task == "plus" else [on_add, on_mult]
        assert sorted(fired.take(), key=str) == sorted(expected, key=str)

    await play(workflow, script)
