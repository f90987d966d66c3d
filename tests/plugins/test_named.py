"""The conditions and callbacks that have names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Condition, WorkflowCondition
from motoko_plugins.conditions import named


class Study:
    """A task manager with runs in these states, which answers every selection with all of them."""

    def __init__(self, *states: str | None) -> None:
        self.states = states
        self.asked: list[Any] = []

    def select(self, constraints: Any = None) -> list[tuple[Any, Any]]:
        self.asked.append(constraints)
        return [(SimpleNamespace(state=state), SimpleNamespace()) for state in self.states]


def holds(condition: Condition, task_manager: Any = None, **studies: Any) -> bool:
    assert isinstance(condition, WorkflowCondition)
    workflow: Any = SimpleNamespace(task_managers=studies, run_name="r")
    answer = condition.evaluate(workflow, task_manager)
    assert isinstance(answer, bool)
    return answer


@pytest.mark.parametrize(
    ("states", "answer"),
    [
        ([], False),
        (["FINISHED"], True),
        (["FINISHED", "FORWARDED"], True),
        *[
            (["FINISHED", state], False)
            for state in ("CREATED", "TOBELAUNCHED", "launched", "START", "SLURM submit", "FAILED", None)
        ],
    ],
)
def test_all_finished(states: list[str | None], answer: bool) -> None:
    watched = Study(*states)
    assert holds(named.all_finished(), watched) is answer
    assert holds(named.all_finished(task="mult"), Study("START"), mult=watched, add=Study()) is answer


def test_all_finished_asks_the_index_for_what_would_hold_it_back() -> None:
    watched = Study("FINISHED")
    holds(named.all_finished(), watched)
    (question,) = watched.asked[0]
    assert question.startswith("state in (")
    assert '"CREATED"' in question
    assert '"SLURM submit"' in question
    assert '"FAILED"' in question


def test_all_finished_of_an_unknown_task_manager() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mult'"):
        holds(named.all_finished(task="mul"), Study(), mult=Study())


@pytest.mark.parametrize(
    ("studies", "answer"),
    [
        ({}, False),
        ({"add": Study(), "mult": Study()}, False),
        ({"add": Study(), "mult": Study("FINISHED")}, True),
        ({"add": Study("FAILED"), "mult": Study("FINISHED")}, True),
        ({"add": Study("FINISHED"), "mult": Study("FINISHED", "START")}, False),
        ({"add": Study("CREATED"), "mult": Study()}, False),
    ],
)
def test_idle(studies: dict[str, Study], answer: bool) -> None:
    assert holds(named.idle(), **studies) is answer


def test_every_holds_once_per_period() -> None:
    now = [100.0]
    condition = named.every(seconds=10, clock=lambda: now[0])
    assert condition.outside
    answers = []
    for time in (100.0, 109.9, 110.0, 110.0, 119.0, 120.0, 155.0, 156.0, 165.0):
        now[0] = time
        answers.append(holds(condition))
    assert answers == [False, False, True, False, False, True, True, False, True]


def test_every_has_its_own_period_in_each_condition() -> None:
    now = [0.0]
    one, other = (named.every(seconds=10, clock=lambda: now[0]) for _ in range(2))
    now[0] = 10.0
    assert holds(one)
    assert holds(other)


def test_file_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    condition = named.file_exists(path="done.txt")
    assert condition.outside
    assert str(tmp_path / "done.txt") in condition.description
    assert not holds(condition)
    (tmp_path / "done.txt").touch()
    assert holds(condition)
    monkeypatch.chdir("elsewhere")
    assert holds(condition)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert holds(named.file_exists(path=Path("~/done.txt")))


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        *[(named.every, "seconds", x) for x in (0, -1, "10", None, True, float("nan"), float("inf"))],
        *[(named.file_exists, "path", x) for x in ("", " ", None, 3)],
        *[(named.all_finished, "task", x) for x in ("", 3, ["add"])],
        *[(named.make_create_tasks, "task", x) for x in (None, " ", 3)],
    ],
)
def test_wrong_settings_are_refused(make: Callable[..., Any], setting: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**{setting: value})
    assert f"{setting}={value!r}" in str(caught.value)
    assert caught.value.hint


def test_the_names() -> None:
    assert sorted(named.motoko_conditions()) == ["all_finished", "every", "file_exists", "idle"]
    assert sorted(named.motoko_actions()) == ["create_tasks", "finish"]
    for make in (named.all_finished, named.idle):
        assert make().description
        assert not make().outside


# --------------------------------------------------------------------------- named callbacks


class Recorder:
    """A task manager that remembers what it was asked for, and which function asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.callers: list[str] = []

    def createTask(self, run_params: Any = None, commit: bool = False, **job_params: Any) -> Any:
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        self.callers.append(frame.f_back.f_code.co_name)
        self.calls.append((dict(run_params) if run_params is not None else None, job_params))
        if run_params is not None:
            run_params["run_name"] = "r"
        return NeverAwaited()


class NeverAwaited:
    def __await__(self) -> Any:
        raise AssertionError("create_tasks waits for its tasks")


async def test_create_tasks_creates_without_waiting() -> None:
    study = Recorder()
    workflow = SimpleNamespace(add=study)
    callback = named.motoko_actions()["create_tasks"](task="add", run_params={"nproc": 2}, x=[1, 2], y=3)
    assert await callback(workflow=workflow, runs=[], event_name="go", z=5) is None
    assert await callback(workflow) is None
    assert study.calls == [({"nproc": 2}, {"x": [1, 2], "y": 3})] * 2
    assert study.callers == ["create_tasks", "create_tasks"]


async def test_create_tasks_without_run_parameters() -> None:
    study = Recorder()
    await named.make_create_tasks(task="add")(workflow=SimpleNamespace(add=study))
    assert study.calls == [(None, {})]


async def test_finish_ends_the_workflow() -> None:
    workflow = SimpleNamespace(finished=False)
    await named.motoko_actions()["finish"]()(workflow=workflow, params=None)
    assert workflow.finished is True
