"""Actions that fire once per task: over restarts, conflicts and kill -9."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ActionError
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state, states
from tests.driving import Clock, Firings, ids, play, settle
from tests.killed import POINTS, count_name, orchestrator

ROOT = Path(__file__).parents[3]


async def test_a_task_that_keeps_matching_fires_once(workflow: Workflow, clock: Clock) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    fired = Firings()

    async def script() -> None:
        workflow.add_action("once", task="mult", event="state = FINISHED", f=fired, once_per_run=True)
        set_state(workflow, first, "FINISHED")
        await settle()
        await clock.tick(2)
        set_state(workflow, second, "FINISHED")
        await settle()
        set_state(workflow, first, "CREATED")
        await settle()
        set_state(workflow, first, "FINISHED")
        await clock.tick(2)
        assert fired.take() == [ids([first]), ids([second])]

    await play(workflow, script)


async def test_a_task_that_has_fired_does_not_fire_in_a_new_engine(workflow: Workflow, clock: Clock) -> None:
    first, second = create_tasks(workflow, x=[1.0, 2.0])
    set_state(workflow, first, "FINISHED")
    fired = Firings()

    async def script() -> None:
        workflow.add_action("once", task="mult", event="state = FINISHED", f=fired, once_per_run=True)
        await settle()
        await clock.tick()

    await play(workflow, script)
    assert fired.take() == [ids([first])]
    set_state(workflow, second, "FINISHED")
    await play(workflow, script)
    assert fired.take() == [ids([second])]


async def test_marks_belong_to_an_action_and_a_run_name(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    one, two, everywhere = Firings(), Firings(), Firings()

    async def script() -> None:
        workflow.add_action("one", task="mult", event="state = CREATED", f=one, once_per_run=True)
        workflow.add_action("two", task="mult", event="state = CREATED", f=two, once_per_run=True)
        workflow.add_action("one", event="state = CREATED", f=everywhere, once_per_run=True)
        await settle()
        await clock.tick()

    await play(workflow, script)
    assert one.take() == two.take() == everywhere.take() == [ids([task])]
    workflow.run_name = f"{workflow.run_name}-other"
    (other,) = create_tasks(workflow, x=1.0)
    await play(workflow, script)
    assert one.take() == two.take() == everywhere.take() == [ids([other])]


async def test_tasks_of_two_studies_in_one_selection_are_told_apart(workflow: Workflow, clock: Clock) -> None:
    create_tasks(workflow, "mult", x=1.0)
    create_tasks(workflow, "add", x=1.0)
    seen: list[str] = []

    def both(workflow: Workflow, task_manager: Any) -> list[Any]:
        return [*workflow.mult.select(), *workflow.add.select()]

    def note(runs: Any) -> None:
        seen.extend(run._p_jar.motoko_base.study.name for run, _ in runs)

    async def script() -> None:
        workflow.add_action("both", event=both, f=note, once_per_run=True)
        await settle()
        await clock.tick(2)

    for _ in range(2):
        await play(workflow, script)
    assert sorted(seen) == ["add", "mult"]


async def test_a_conflict_neither_loses_nor_doubles_a_firing(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    attempts = 0

    async def script() -> None:
        workflow.add_action("once", task="mult", event="state = CREATED", f=disturbed, once_per_run=True)
        await settle()
        await clock.tick(2)

    def disturbed(runs: Any) -> None:
        nonlocal attempts
        attempts += 1
        ((run, _job),) = runs
        run.entries["note"] = f"attempt {attempts}"
        if attempts == 1:
            set_state(workflow, task, "CREATED", note="somebody else")

    await play(workflow, script)
    assert attempts == 2
    ((run, _job),) = transact("the test", lambda: [(dict(r.entries), j) for r, j in workflow.mult.select()])
    assert run["note"] == "attempt 2"
    await play(workflow, script)
    assert attempts == 2


async def test_a_firing_that_raised_is_not_marked(workflow: Workflow, clock: Clock) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    fired = Firings()

    def fails() -> None:
        raise ValueError("no")

    async def main(workflow: Workflow) -> None:
        workflow.add_action("once", task="mult", event="state = CREATED", f=fails, once_per_run=True)

    with pytest.raises(ActionError):
        await orchestrate(workflow, main)

    async def script() -> None:
        workflow.add_action("once", task="mult", event="state = CREATED", f=fired, once_per_run=True)
        await settle()

    await play(workflow, script)
    assert fired.take() == [ids([task])]


async def test_a_firing_that_left_cleanly_is_marked(workflow: Workflow, clock: Clock) -> None:
    create_tasks(workflow, x=1.0)
    fired = Firings()

    def leaves() -> None:
        workflow.add.createTask(x=5.0)
        sys.exit(0)

    async def main(workflow: Workflow) -> None:
        workflow.add_action("once", task="mult", event="state = CREATED", f=leaves, once_per_run=True)

    workflow.orchestrator_function = main
    with pytest.raises(SystemExit) as leaving:
        await workflow.execute_async()
    assert leaving.value.code == 0
    assert len(states(workflow, "add")) == 1

    async def script() -> None:
        workflow.add_action("once", task="mult", event="state = CREATED", f=fired, once_per_run=True)
        await settle()

    await play(workflow, script)
    assert fired.take() == []


# --------------------------------------------------------------------------- kill -9


# A boolean trigger changes no run: only two databases are written to.
@pytest.mark.parametrize(
    ("fatal", "form"),
    [
        # A run that leaves its own condition would never fire again, were it committed alone.
        *((point, "run") for point in POINTS if point != "after the checkpoint"),
        ("after the checkpoint", "kept"),
        *((point, "boolean") for point in ("before the commit", "finish 2")),
    ],
)
async def test_a_firing_that_is_killed_is_neither_lost_nor_doubled(
    workflow: Workflow, clock: Clock, fatal: str, form: str
) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    set_state(workflow, task, "FINISHED")
    child = [sys.executable, "-m", "tests.killed", workflow.config_path, str(workflow.run_name), fatal, form]
    killed = subprocess.run(child, check=False, capture_output=True, text=True, cwd=ROOT)  # noqa: ASYNC221
    assert killed.returncode == -9, killed.stderr
    for _ in range(2):
        await orchestrate(workflow, orchestrator("never", form))
    assert states(workflow, "mult") == {ids([task])[0]: "FINISHED" if form == "boolean" else "FORWARDED"}
    assert len(states(workflow, "add")) == 1
    # What a checkpoint has committed is repeated, as the callback is called again from its top.
    expected = 2 if fatal == "after the checkpoint" else 1
    assert transact("the test", lambda: getattr(workflow.vars, count_name(workflow))) == expected
