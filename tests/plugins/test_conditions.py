"""The built-in forms of events."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Condition, RunCondition, WorkflowCondition
from motoko_plugins.conditions import constraint, constraint_list, no_parameter, run_filter, workflow_filter

FORMS = {
    "run_filter": run_filter,
    "workflow_filter": workflow_filter,
    "no_parameter": no_parameter,
    "constraint": constraint,
    "constraint_list": constraint_list,
}


def forms_of(event: object) -> dict[str, Condition]:
    """Ask every form, so that a test sees that exactly one of them takes an event."""
    answers = {name: form.motoko_condition_from_event(event, "go") for name, form in FORMS.items()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def ready(run: Any, job: Any) -> bool:
    return bool(run == job)


def drained(workflow: Any, task_manager: Any) -> bool:
    return bool(workflow == task_manager)


def late() -> bool:
    return True


class Thing:
    def __call__(self, run: Any, job: Any) -> bool:
        return bool(run == job)

    def runs(self, run: Any, job: Any) -> bool:
        return bool(run == job)

    def study(self, workflow: Any, task_manager: Any) -> bool:
        return bool(workflow == task_manager)

    def nothing(self) -> bool:
        return True

    @classmethod
    def of_class(cls, run: Any, job: Any) -> bool:
        return bool(run == job)

    @staticmethod
    def static(run: Any, job: Any) -> bool:
        return bool(run == job)


def with_limit(run: Any, job: Any, limit: int) -> bool:
    return bool(run == job) and limit == 3


def limit_first(limit: int, run: Any, job: Any) -> bool:
    return with_limit(run, job, limit)


@functools.wraps(ready)
def wrapped(*args: Any, **kwargs: Any) -> bool:
    return ready(*args, **kwargs)


@pytest.mark.parametrize(
    "event",
    [
        ready,
        wrapped,
        lambda run, job: run == job,
        lambda run, job, limit=3: run == job,
        lambda run, job, *rest, **more: run == job,
        lambda run, job, *, limit=3: run == job,
        lambda run, job, /: run == job,
        lambda run=None, job=None: run == job,
        functools.partial(with_limit, limit=3),
        functools.partial(limit_first, 3),
        Thing(),
        Thing().runs,
        Thing.of_class,
        Thing.static,
    ],
)
def test_a_function_of_run_and_job_is_a_run_filter(event: Any) -> None:
    forms = forms_of(event)
    assert list(forms) == ["run_filter"]
    condition = forms["run_filter"]
    assert isinstance(condition, RunCondition)
    assert condition.constraints == ()
    assert condition.filter is not None
    assert condition.filter(1, 1)
    assert not condition.filter(1, 2)


@pytest.mark.parametrize(
    "event",
    [
        drained,
        lambda workflow, task_manager: workflow == task_manager,
        lambda workflow, task_manager, limit=3: workflow == task_manager,
        functools.partial(lambda limit, workflow, task_manager: workflow == task_manager, 3),
        Thing().study,
    ],
)
def test_a_function_of_workflow_and_task_manager_is_a_workflow_filter(event: Any) -> None:
    forms = forms_of(event)
    assert list(forms) == ["workflow_filter"]
    condition = forms["workflow_filter"]
    assert isinstance(condition, WorkflowCondition)
    one: Any = 1
    other: Any = 2
    assert condition.evaluate(one, one)
    assert not condition.evaluate(one, other)


@pytest.mark.parametrize(
    "event",
    [
        late,
        lambda: True,
        lambda limit=3: limit == 3,
        lambda *args, **kwargs: not args and not kwargs,
        functools.partial(lambda n: n == 3, 3),
        Thing().nothing,
    ],
)
def test_a_function_of_nothing_looks_outside(event: Any) -> None:
    forms = forms_of(event)
    assert list(forms) == ["no_parameter"]
    condition = forms["no_parameter"]
    assert isinstance(condition, WorkflowCondition)
    assert condition.outside
    workflow: Any = "w"
    assert condition.evaluate(workflow, workflow) is True


@pytest.mark.parametrize(
    "event",
    [
        lambda job, run: True,
        lambda run: True,
        lambda run, job, limit: True,
        lambda run, job, *, limit: True,
        lambda *, run, job: True,
        lambda task_manager, workflow: True,
        lambda workflow: True,
        lambda x, y: True,
        functools.partial(with_limit),
        functools.partial(ready, job=1),
        Thing,
        dict,
        None,
        True,
        3,
        b"state = FINISHED",
        {"state": "FINISHED"},
        {"state = FINISHED"},
    ],
)
def test_anything_else_is_nobodys(event: object) -> None:
    assert forms_of(event) == {}


def test_a_function_written_in_c_without_a_signature_is_nobodys() -> None:
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    assert forms_of(max) == {}


async def async_ready(run: Any, job: Any) -> bool:
    return True


async def async_drained(workflow: Any, task_manager: Any) -> bool:
    return True


async def async_late() -> bool:
    return True


async def async_generator(run: Any, job: Any) -> AsyncIterator[bool]:
    yield True


class AsyncThing:
    async def __call__(self, run: Any, job: Any) -> bool:
        return True

    async def runs(self, run: Any, job: Any) -> bool:
        return True


@pytest.mark.parametrize("form", [run_filter, workflow_filter, no_parameter])
@pytest.mark.parametrize(
    "event",
    [
        async_ready,
        async_drained,
        async_late,
        async_generator,
        AsyncThing(),
        AsyncThing().runs,
        functools.partial(async_ready),
        functools.partial(AsyncThing()),
    ],
)
def test_a_coroutine_function_is_refused(form: Any, event: object) -> None:
    with pytest.raises(ConfigError) as caught:
        form.motoko_condition_from_event(event, "go")
    assert "action 'go': " in str(caught.value)
    assert "is a coroutine function" in str(caught.value)
    assert "Conditions are plain functions" in str(caught.value)


def test_a_string_is_a_constraint() -> None:
    forms = forms_of("state = FINISHED")
    assert forms == {
        "constraint": RunCondition(description='"state = FINISHED"', constraints=("state = FINISHED",))
    }


@pytest.mark.parametrize("event", ["", " ", "\n\t"])
def test_a_blank_constraint_is_refused(event: str) -> None:
    with pytest.raises(ConfigError, match=r"action 'go': .*without content") as caught:
        forms_of(event)
    assert "state = FINISHED" in str(caught.value)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_constraints(kind: Callable[[Sequence[str]], Sequence[str]]) -> None:
    forms = forms_of(kind(["runs.id < 3", "state = FINISHED"]))
    assert forms == {
        "constraint_list": RunCondition(
            description='"runs.id < 3" and "state = FINISHED"',
            constraints=("runs.id < 3", "state = FINISHED"),
        )
    }


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ([], "list of no constraints"),
        ((), "list of no constraints"),
        (["state = A", 3], "item 2 of the event is 3"),
        ([""], "item 1 of the event is ''"),
        ([["state = A"]], "item 1"),
        ((ready,), "item 1"),
    ],
)
def test_a_list_of_something_else_is_refused(event: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        forms_of(event)
    assert message in str(caught.value)
    assert "action 'go': " in str(caught.value)
    assert '["runs.id < 3", "state = FINISHED"]' in str(caught.value)


@pytest.mark.parametrize(
    ("event", "words", "code"),
    [
        (ready, "run filter ready", ready),
        (wrapped, "run filter ready", ready),
        (functools.cache(ready), "run filter ready", ready),
        (functools.partial(with_limit, limit=3), "run filter with_limit", with_limit),
        (functools.partial(Thing()), "run filter Thing", Thing.__call__),
        (Thing(), "run filter Thing", Thing.__call__),
        (Thing().runs, "run filter runs", Thing.runs),
        (drained, "workflow filter drained", drained),
        (late, "function late", late),
    ],
)
def test_the_description_says_where_a_function_is(event: object, words: str, code: Any) -> None:
    (condition,) = forms_of(event).values()
    assert condition.description == f"{words} (test_conditions.py:{code.__code__.co_firstlineno})"


def test_the_description_of_a_function_written_in_c() -> None:
    (condition,) = forms_of([].__len__).values()
    assert condition.description == "function __len__"
