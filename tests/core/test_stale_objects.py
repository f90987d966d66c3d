"""Objects that a session has handed out: what they are, and that they refuse once it is over."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from motoko_core.errors import StaleObjectError
from motoko_core.session import Session, transact, use
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, number, set_state, states
from tests.processes import run_python


def stale_task(workflow: Workflow) -> tuple[Any, Any, str]:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("short")):
        ((run, job),) = workflow.mult.select()
        assert run.state == "CREATED"
    return run, job, reference


@pytest.mark.parametrize(
    "misuse",
    [
        lambda o: o.id,
        lambda o: o["id"],
        lambda o: o.entries,
        lambda o: setattr(o, "note", "lost"),
        lambda o: o.__setitem__("note", "lost"),
        lambda o: list(o),
        lambda o: "id" in o,
        lambda o: o.get_params(),
    ],
    ids=["attribute", "item", "entries", "set", "set item", "iterate", "contains", "method"],
)
def test_object_of_a_closed_session_refuses(workflow: Workflow, misuse: Any) -> None:
    run, job, reference = stale_task(workflow)
    with pytest.raises(StaleObjectError, match=f"^{reference} was handed out") as raised:
        misuse(run)
    assert f"workflow.get_runs(['{reference}'])" in str(raised.value)
    with pytest.raises(StaleObjectError, match=f"the job of {reference}"):
        misuse(job)


def test_method_of_a_stale_run_writes_nothing(workflow: Workflow) -> None:
    run, _, reference = stale_task(workflow)
    with pytest.raises(StaleObjectError):
        run.start()
    assert states(workflow) == {number(reference): "CREATED"}


def test_list_kept_from_a_session_is_stale(workflow: Workflow) -> None:
    create_tasks(workflow, x=[1, 2])
    kept: list[Any] = []
    with use(Session("short")):
        kept += workflow.mult.select()
        kept += workflow.mult.createTask(x=3)
        kept += [(run, None) for run in workflow.get_runs([f"mult.{kept[0][0].id}"])["mult"]]
    for run, _ in kept:
        with pytest.raises(StaleObjectError):
            run.state  # noqa: B018


def test_hint_of_a_stale_object_works(workflow: Workflow) -> None:
    _, _, reference = stale_task(workflow)
    with use(Session("later")):
        assert workflow.get_runs([reference])["mult"][0].state == "CREATED"


def test_stale_object_is_printed_and_told_apart(workflow: Workflow) -> None:
    run, _, reference = stale_task(workflow)
    assert reference in repr(run)
    assert "over" in repr(run)
    assert not hasattr(run, "__fspath__")


def test_objects_of_a_session_survive_its_checkpoints(workflow: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1)
    with use(Session("it")) as it:
        ((run, _),) = workflow.mult.select()
        set_state(workflow, reference, "START")
        it.checkpoint()
        assert run.state == "START"


def test_session_does_not_collect_what_user_code_has_dropped(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.session._HANDED", 10)
    create_tasks(workflow, x=[1, 2, 3])
    with use(Session("of days")) as it:
        kept = list(workflow.mult.select())
        for _ in range(20):
            list(workflow.mult.select())
        assert len(it._handed) <= 2 * (2 * len(kept) + 6) + 10
        assert {id(weak()) for weak in it._handed} >= {id(obj) for pair in kept for obj in pair}


def test_handed_out_object_is_what_it_says(workflow: Workflow) -> None:
    from BlackDynamite.run_zeo import RunZEO

    create_tasks(workflow, x=1)
    with use(Session("it")):
        ((run, job),) = workflow.mult.select()
        assert isinstance(run, RunZEO)
        assert run == workflow.mult.base.runs[run.id]
        assert run.getJob().id == job.id
        assert (run, job) in workflow.mult.select()
        with pytest.raises(TypeError, match="store its reference"):
            copy.deepcopy([run])


def test_run_that_is_stored_in_another_run_stays_readable(workflow: Workflow) -> None:
    """BlackDynamite scripts link runs of one study; the link has to lead to the run, not to our wrapper."""

    def work() -> None:
        (first, _), (second, _) = workflow.mult.createTask(x=[1, 2])
        second.previous = first
        second.entries["history"] = [first]

    transact("it", work)
    (identifier, *_) = states(workflow)
    script = """
        import sys, BlackDynamite as BD
        run = BD.Base(host="zeo://" + sys.argv[1], study="mult").runs[int(sys.argv[2])]
        run._p_activate()
        print(type(run.__dict__["previous"]).__name__, run.__dict__["previous"].id, run.history[0].id)
    """
    printed = run_python(script, workflow.mult.study_dir, identifier + 1, cwd=workflow.mult.study_dir)
    assert printed == f"RunZEO {identifier} {identifier}"
