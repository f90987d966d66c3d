"""What a callback and ``main`` are called with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from motoko_core.engine.actions import accepted_arguments
from motoko_core.errors import ActionError
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, orchestrate
from tests.driving import Clock, play, settle

AVAILABLE = ["workflow", "runs", "task_manager", "event_name", "params", "tolerance"]


def subsets() -> list[list[str]]:
    return [[n for i, n in enumerate(AVAILABLE) if bits >> i & 1] for bits in range(2 ** len(AVAILABLE))]


@pytest.mark.parametrize("names", subsets(), ids="-".join)
def test_every_subset_of_the_arguments(names: list[str]) -> None:
    f = eval(f"lambda {', '.join(names)}: None")
    available = {name: name.upper() for name in AVAILABLE}
    assert accepted_arguments(f, available) == {name: name.upper() for name in names}


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda **kwargs: None, set(AVAILABLE)),
        (lambda runs, **kwargs: None, set(AVAILABLE)),
        (lambda *args: None, set()),
        (lambda *, runs, missing=None: None, {"runs"}),
        (partial(lambda a, runs, params: None, 1), {"runs", "params"}),
    ],
)
def test_signatures_of_other_kinds(f: Callable[..., Any], expected: set[str]) -> None:
    assert accepted_arguments(f, dict.fromkeys(AVAILABLE)).keys() == expected


async def collect(workflow: Workflow, event: Any, get_params: Any = None, /, **params: Any) -> dict[str, Any]:
    """Fire an action once; answer what it was called with."""
    got: dict[str, Any] = {}

    def note(**kwargs: Any) -> None:
        got.update(kwargs)

    async def script() -> None:
        workflow.add_action("it", task="mult", event=event, f=note, get_params=get_params, once_per_run=True)
        await settle()

    await play(workflow, script, **params)
    return got


async def test_a_selection_gives_runs_and_jobs(workflow: Workflow, clock: Clock) -> None:
    create_tasks(workflow, x=3.0)
    seen: list[Any] = []

    async def script() -> None:
        workflow.add_action(
            "it",
            task="mult",
            event="state = CREATED",
            f=lambda runs: seen.extend((run.state, job.x) for run, job in runs),
            once_per_run=True,
        )
        await settle()

    await play(workflow, script)
    assert seen == [("CREATED", 3.0)]


async def test_a_boolean_trigger_gives_no_runs(workflow: Workflow, clock: Clock) -> None:
    got = await collect(workflow, lambda: True, tolerance=0.5)
    assert got == {
        "workflow": workflow,
        "task_manager": workflow.mult,
        "event_name": "it",
        "params": None,
        "tolerance": 0.5,
    }


async def test_names_of_the_engine_win_over_runtime_parameters(workflow: Workflow, clock: Clock) -> None:
    clash = {"workflow": 1, "task_manager": 2, "event_name": 3, "params": 4}
    got = await collect(workflow, lambda: True, **clash)
    assert got["workflow"] is workflow
    assert (got["task_manager"], got["event_name"], got["params"]) == (workflow.mult, "it", None)


async def compute() -> int:
    return 7


@pytest.mark.parametrize("get_params", [lambda: 7, 7, compute])
async def test_get_params_is_evaluated_at_each_firing(
    workflow: Workflow, clock: Clock, get_params: Any
) -> None:
    assert (await collect(workflow, lambda: True, get_params))["params"] == 7


async def test_an_argument_that_nobody_provides_is_an_error(workflow: Workflow, clock: Clock) -> None:
    def needs_runs(runs: Any) -> None:
        raise AssertionError

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=lambda: True, f=needs_runs)

    with pytest.raises(ActionError, match=r"missing 1 required positional argument: 'runs'") as caught:
        await orchestrate(workflow, main)
    assert caught.value.where == f"{__file__}:{needs_runs.__code__.co_firstlineno}"
    assert isinstance(caught.value.__cause__, TypeError)


async def test_main_gets_the_runtime_parameters_that_it_takes(workflow: Workflow) -> None:
    got: list[Any] = []

    async def some(workflow: Workflow, a: int, b: int = 2) -> None:
        got.append((workflow, a, b))

    def everything(wf: Workflow, **params: Any) -> None:
        got.append((wf, params))

    await orchestrate(workflow, some, a=1, c=3)
    await orchestrate(workflow, everything, a=1, c=3, wf="a clash")
    assert got == [(workflow, 1, 2), (workflow, {"a": 1, "c": 3})]
