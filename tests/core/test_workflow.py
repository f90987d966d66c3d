"""The facade: references, locks, observers, what a second execution and the by-hand calls do."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pluggy
import pytest

from motoko_core.errors import AlreadyRunning, ConfigError, MotokoError, TaskError
from motoko_core.hookspecs import hookimpl
from motoko_core.session import transact
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate, set_state, states
from tests.driving import Firings, ids, play, settle

ROOT = Path(__file__).parents[2]


def test_get_runs_groups_by_the_names_as_they_are_written(workflow: Workflow) -> None:
    first, second = create_tasks(workflow, "add", x=[1.0, 2.0])
    alias = second.replace("add", "plus")
    found = transact(
        "the test", lambda: {k: [r.id for r in v] for k, v in workflow.get_runs([first, alias]).items()}
    )
    assert found == {"add": ids([first]), "plus": ids([second])}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("add", "not a reference"),
        ("add.x", "not a reference"),
        ("ad.1", "no task manager 'ad'"),
        ("add.99999999", "has no run 99999999"),
    ],
)
def test_get_runs_says_what_is_wrong_with_a_reference(
    workflow: Workflow, reference: str, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        workflow.get_runs([reference])


def test_is_empty_looks_at_the_run_name(workflow: Workflow) -> None:
    assert transact("the test", workflow.is_empty)
    create_tasks(workflow, x=1.0)
    assert not transact("the test", workflow.is_empty)
    workflow.run_name = f"{workflow.run_name}-other"
    assert transact("the test", workflow.is_empty)


def test_task_managers_and_aliases_are_attributes(workflow: Workflow) -> None:
    assert workflow.plus is workflow.add is workflow.task_managers["add"]
    with pytest.raises(AttributeError, match="Did you mean 'mult'"):
        _ = workflow.mutl


async def test_execute_inside_a_running_loop_says_what_to_write(workflow: Workflow) -> None:
    with pytest.raises(MotokoError, match="running event loop") as caught:
        workflow.execute()
    assert "await workflow.execute_async()" in str(caught.value)


# --------------------------------------------------------------------------- one at a time


async def test_a_second_orchestrator_in_the_same_process_is_refused(workflow: Workflow) -> None:
    other = Workflow(workflow.config_path)

    async def script() -> None:
        for second in (workflow, other):
            with pytest.raises(AlreadyRunning):
                await second.execute_async(tolerance=2)
        assert workflow.params == {"tolerance": 1}

    await play(workflow, script, tolerance=1)
    await orchestrate(workflow, lambda workflow: None)


CHILD = """
import asyncio, sys
from motoko_core.workflow import Workflow
workflow = Workflow(sys.argv[1])
async def main(workflow):
    print("running", flush=True)
    await asyncio.Event().wait()
workflow.orchestrator_function = main
workflow.execute()
"""


def test_a_second_process_is_refused_until_the_first_was_killed(workflow: Workflow) -> None:
    workflow.orchestrator_function = lambda workflow: None
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, workflow.config_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        with pytest.raises(AlreadyRunning, match=f"process {child.pid}"):
            workflow.execute()
        child.send_signal(signal.SIGKILL)
    workflow.execute()


# --------------------------------------------------------------------------- observers


class Observer:
    """Notes what happens; raises when it is told to."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.broken = False

    def _note(self, *what: Any) -> None:
        self.seen.append(what)
        if self.broken:
            raise RuntimeError("a broken observer")

    @hookimpl
    def motoko_workflow_started(self, workflow: Any) -> None:
        self._note("started")

    @hookimpl
    def motoko_workflow_finished(self, workflow: Any, outcome: str) -> None:
        self._note("finished", outcome)

    @hookimpl
    def motoko_event_fired(self, workflow: Any, firing: Any) -> None:
        self._note("fired", firing.event_name, firing.task_manager, firing.runs, firing.attempt)

    @hookimpl
    def motoko_runs_changed(self, workflow: Any, task_manager: Any, changes: Any) -> None:
        self._note("changed", task_manager.study, [(c.run_id, c.before, c.after) for c in changes])


@pytest.fixture
def observer(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> Observer:
    observer = Observer()

    def observe(hook_name: str, /, **kwargs: Any) -> None:
        try:
            accepted = getattr(observer, hook_name)
            accepted(**kwargs)
        except RuntimeError:
            logging.getLogger("motoko").exception("an observer failed")

    assert isinstance(pluggy.__version__, str)
    monkeypatch.setattr(workflow.plugins, "observe", observe)
    return observer


@pytest.mark.parametrize("broken", [False, True])
async def test_observers_are_told(workflow: Workflow, observer: Observer, broken: bool) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    observer.broken = broken

    async def script() -> None:
        workflow.add_action("it", task="mult", event="state = FINISHED", f=Firings(), once_per_run=True)
        set_state(workflow, task, "FINISHED")
        await settle()

    await play(workflow, script)
    (number,) = ids([task])
    assert observer.seen == [
        ("started",),
        ("changed", "mult", [(number, "CREATED", "FINISHED")]),
        ("fired", "it", "mult", (task,), 1),
        ("finished", "finished"),
    ]


async def test_observers_are_told_how_it_ended(workflow: Workflow, observer: Observer) -> None:
    def fails(workflow: Workflow) -> None:
        raise ValueError

    with pytest.raises(MotokoError):
        await orchestrate(workflow, fails)

    async def waits(workflow: Workflow) -> None:
        await asyncio.Event().wait()

    workflow.orchestrator_function = waits
    execution = asyncio.create_task(workflow.execute_async())
    await settle()
    execution.cancel()
    with pytest.raises(asyncio.CancelledError):
        await execution
    assert [seen[1] for seen in observer.seen if seen[0] == "finished"] == ["failed", "interrupted"]


# --------------------------------------------------------------------------- by hand


async def test_events_can_be_checked_by_hand(workflow: Workflow) -> None:
    (task,) = create_tasks(workflow, x=1.0)
    got: list[Any] = []

    def create(workflow: Workflow, runs: Any, params: Any, tolerance: float) -> str:
        got.append(([run.id for run, _ in runs], params, tolerance))
        workflow.add.createTask(x=1.0)
        return "result"

    workflow.add_action("it", task="mult", event="state = FINISHED", f=create, get_params=lambda: 4)
    workflow.add_action("end", event=lambda: bool(got), f=lambda: setattr(workflow, "finished", True))
    await workflow.check_events(tolerance=0.5)
    assert got == []
    set_state(workflow, task, "FINISHED")
    assert await workflow.check_event("it", "mult", tolerance=0.5) == ["result"]
    assert got == [(ids([task]), 4, 0.5)]
    assert len(states(workflow, "add")) == 1
    await workflow.loop_check_events(tolerance=0.5)
    assert workflow.finished
    with pytest.raises(ConfigError, match="no action 'them'"):
        await workflow.check_event("them", "mult")
    fired = workflow.fire_event("by hand", "plus", lambda event_name: event_name, True, None, {})
    assert [result async for result in fired] == ["by hand"]
