"""Sweeps: all run filters are asked about all runs now and then, a portion at a time."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from typing import Any

import pytest

from motoko_core.engine.actions import Action
from motoko_core.engine.sweep import Sweeps
from motoko_core.engine.watch import Registration, Watch
from motoko_core.interfaces import RunCondition
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state
from tests.driving import Clock, Firings, ids, play, settle, until


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs are a portion."""
    monkeypatch.setattr("motoko_core.engine.sweep.PORTION", 2)


def run_filter(workflow: Workflow, f: Any) -> Watch:
    action = Action(
        event_name="filter",
        task="mult",
        event=f,
        f=print,
        condition=RunCondition(description="filter", filter=f),
        constraints={"mult": workflow.mult.constraint([])},
    )
    return Watch(action, workflow.mult, Registration())


async def test_a_run_filter_that_looks_elsewhere_is_swept(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    outside = False
    fired = Firings()

    def looks_outside(run: Any, job: Any) -> bool:
        return outside

    async def script() -> None:
        nonlocal outside
        workflow.add_action("outside", task="mult", event=looks_outside, f=fired)
        await settle()
        outside = True
        await clock.tick()
        assert fired.take() == [ids([task])]

    await play(workflow, script)


def test_sweeps_take_five_percent_of_the_time(workflow: Workflow) -> None:
    create_tasks(workflow, x=1.0)
    now, asked = 100.0, []

    def slow(run: Any, job: Any) -> bool:
        nonlocal now
        asked.append(now)
        now += 1.5
        return False

    sweeps = Sweeps(lambda: now, lambda _: nullcontext())
    watches = [run_filter(workflow, slow), run_filter(workflow, slow)]
    sweeps.go_on(watches, now, tick=False)
    assert now == 103.0
    for later in (103.0, 120.0, 159.9):
        sweeps.go_on(watches, later, tick=True)
    assert len(asked) == 2
    sweeps.go_on(watches, 160.0, tick=False)
    assert len(asked) == 2
    sweeps.go_on(watches, 160.0, tick=True)
    assert len(asked) == 4


@pytest.mark.usefixtures("small_portions")
async def test_other_events_are_noticed_between_the_portions(workflow: Workflow, clock: Clock) -> None:
    tasks = create_tasks(workflow, x=[float(i) for i in range(7)])
    order: list[Any] = []

    def is_wanted(run: Any, job: Any) -> bool:
        order.append(run.id)
        if len(order) == 1:
            workflow.add_action("at once", task="mult", event=lambda: True, f=lambda: order.append("fired"))
        return True

    fired = Firings()

    async def script() -> None:
        workflow.add_action("wanted", task="mult", event=is_wanted, f=fired)
        await settle()
        del workflow.actions["mult"]["at once"]
        assert order[:2] == ids(tasks[:2])
        assert "fired" in order[2:]
        assert [i for i in order if i != "fired"][:7] == ids(tasks)
        # What the sweep has found fires together, as if it had been found at once.
        assert fired.take() == [ids(tasks)]

    await play(workflow, script)


@pytest.mark.usefixtures("small_portions")
def test_run_that_changes_during_a_sweep_counts_as_it_is_at_the_end(workflow: Workflow) -> None:
    first, second, third = create_tasks(workflow, x=[1.0, 2.0, 3.0])
    set_state(workflow, second, "START")
    watch = run_filter(workflow, lambda run, job: bool(run.state == "CREATED"))
    sweeps = Sweeps(lambda: 0.0, lambda _: nullcontext())
    sweeps.go_on([watch], 0.0, tick=False)
    set_state(workflow, first, "START")
    set_state(workflow, second, "CREATED")
    sweeps.note("mult", ids([first, second]))
    watch.look_at_runs(ids([first, second]))
    sweeps.go_on([watch], 0.0, tick=False)
    assert watch.matching == {("mult", i) for i in ids([second, third])}


@pytest.mark.usefixtures("small_portions")
def test_filter_that_comes_during_a_sweep_has_one_of_its_own_at_once(workflow: Workflow) -> None:
    tasks = create_tasks(workflow, x=[1.0, 2.0, 3.0])
    early, late = (run_filter(workflow, lambda run, job: True) for _ in range(2))
    sweeps = Sweeps(lambda: 0.0, lambda _: nullcontext())
    sweeps.go_on([early], 0.0, tick=False)
    sweeps.go_on([early, late], 0.0, tick=False)
    assert early.matching == {("mult", i) for i in ids(tasks)}
    assert sweeps.is_urgent
    sweeps.go_on([early, late], 0.0, tick=False)
    assert late.matching == set()
    sweeps.go_on([early, late], 0.0, tick=False)
    assert late.matching == early.matching
    assert not sweeps.is_urgent


@pytest.mark.usefixtures("small_portions")
async def test_sweep_begins_again_when_announcements_were_lost(workflow: Workflow, clock: Clock) -> None:
    tasks = create_tasks(workflow, x=[1.0, 2.0, 3.0])
    asked: list[int] = []

    def is_asked(run: Any, job: Any) -> bool:
        if not asked:
            assert workflow._engine is not None
            workflow._engine.lookout.note_everything("mult")
        asked.append(run.id)
        return False

    async def script() -> None:
        workflow.add_action("asked", task="mult", event=is_asked, f=Firings())
        await settle()
        assert asked == ids([*tasks[:2], *tasks])

    await play(workflow, script)


@pytest.mark.usefixtures("small_portions")
def test_sweep_of_a_filter_that_is_taken_away_ends(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1.0, 2.0, 3.0])
    sweeps = Sweeps(lambda: 0.0, lambda _: nullcontext())
    sweeps.go_on([run_filter(workflow, lambda run, job: True)], 0.0, tick=False)
    assert sweeps.due is not None
    sweeps.go_on([], 0.0, tick=False)
    assert sweeps.due is None
    assert not sweeps.is_urgent


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("seed", range(3))
async def test_no_match_is_lost_or_doubled_whatever_happens_during_the_sweeps(
    workflow: Workflow, clock: Clock, seed: int
) -> None:
    choose = random.Random(seed)
    tasks = create_tasks(workflow, x=[float(i) for i in range(30)])
    create_tasks(workflow, "add", x=[float(i) for i in range(7)])
    fired: dict[str, list[Any]] = {}

    def is_wanted(run: Any, job: Any) -> bool:
        return bool(run.state == "CREATED" and job.x % 2 == 0)

    def add(name: str, task: str = "mult") -> None:
        seen = fired.setdefault(name, [])

        def note(task_manager: Any, runs: Any) -> None:
            assert all(is_wanted(run, job) for run, job in runs)
            seen.extend((task_manager.study, run.id) for run, _ in runs)

        workflow.actions.get(task, {}).pop(name, None)
        workflow.add_action(name, task=task, event=is_wanted, f=note, once_per_run=True)

    def wanted(study: str) -> set[Any]:
        return {(study, run.id) for run, job in workflow.task_managers[study].select() if is_wanted(run, job)}

    def delete(task: str) -> None:
        transact("the test", lambda: workflow.mult.base._get_runs().entries.pop(ids([task])[0]))

    async def script() -> None:
        add("first")
        add("everywhere", "__all__")
        for number in range(60):
            for _ in range(choose.randrange(20)):
                await asyncio.sleep(0)
            task = choose.choice(tasks)
            what = choose.choice(["create", "delete", "change", "change back", "add", "replace"])
            if what == "create":
                tasks.extend(create_tasks(workflow, x=100.0 + number))
            elif what == "delete":
                tasks.remove(task)
                delete(task)
            elif what.startswith("change"):
                set_state(workflow, task, "START" if what == "change" else "CREATED")
            else:
                add(f"action {number}" if what == "add" else "first")
        engine = workflow._engine
        assert engine is not None
        await settle()
        await until(lambda: not engine.is_behind)  # the sweeps of those that came last
        await settle()
        for watch in engine.lookout.watches:
            assert watch.matching == wanted(watch.manager.study)
        await clock.tick(3)
        for name, seen in fired.items():
            assert len(seen) == len(set(seen))
            assert wanted("mult") <= set(seen), name
        assert wanted("add") <= set(fired["everywhere"])

    await play(workflow, script)
