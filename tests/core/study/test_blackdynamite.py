"""BlackDynamite's own methods on objects of several studies at once."""

from __future__ import annotations

from BlackDynamite.base_zeo import BaseZEO

from motoko_core.session import Session, transact, use
from motoko_core.study.blackdynamite import schema_name
from motoko_core.study.layout import find_schema
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, states
from tests.processes import run_python


def test_run_belongs_to_its_own_study(workflow: Workflow) -> None:
    """BlackDynamite takes the database that was opened last for everybody's."""
    create_tasks(workflow, "mult", x=10)
    create_tasks(workflow, "add", x=20)
    with use(Session("it")):
        ((mult, _),) = workflow.mult.select()
        ((add, _),) = workflow.add.select()
        assert mult.base is workflow.mult.base
        assert add.base is workflow.add.base
        assert (mult.getJob().x, add.getJob().x) == (10.0, 20.0)
        for run, job_x in ((mult, 10.0), (add, 20.0), (mult, 10.0)):
            text = run.replaceBlackDynamiteVariables("__BLACKDYNAMITE__x__ __BLACKDYNAMITE__study__")
            assert text == f"{job_x} {run.base.schema}"


def test_own_base_of_a_task_stays_the_singleton(workflow: Workflow) -> None:
    """A task has opened BlackDynamite's base for its own run before it opens the workflow."""
    (reference,) = create_tasks(workflow, "mult", x=10)
    create_tasks(workflow, "add", x=20)
    script = """
        import sys, BlackDynamite as BD
        from motoko.workflow import Workflow
        own = BD.Base(host="zeo://" + sys.argv[1] + "/mult", study="mult")
        run = own.runs[int(sys.argv[2])]
        workflow = Workflow(run.workflow)
        workflow.run_name = run.run_name
        ((other, job),) = workflow.add.select()
        workflow.add.base.Run(), workflow.add.base.Job()
        run.start()
        other.finish()
        print(run.base is own, other.base is workflow.add.base, job.x)
        for manager in workflow.task_managers.values():
            manager.database.close()
    """
    run_id = reference.rpartition(".")[2]
    printed = run_python(script, workflow.directory, run_id, cwd=workflow.mult.study_dir)
    assert printed.splitlines()[-1] == "True True 20.0"
    assert list(states(workflow, "mult").values()) == ["START"]
    assert list(states(workflow, "add").values()) == ["FINISHED"]


def test_update_changes_the_stored_object(workflow: Workflow) -> None:
    create_tasks(workflow, x=1)

    def work() -> None:
        ((run, _),) = workflow.mult.select()
        run.update(state="START", note="new")

    transact("it", work)
    with use(Session("it")):
        ((run, _),) = workflow.mult.select()
        assert (run.state, run.note) == ("START", "new")


def test_run_that_blackdynamite_makes_belongs_to_the_base_that_was_asked(workflow: Workflow) -> None:
    create_tasks(workflow, "mult", x=1)
    create_tasks(workflow, "add", x=2)
    with use(Session("it")):
        workflow.add.base.Job()
        run = workflow.mult.base.Run()
        assert BaseZEO.singleton_base is workflow.mult.base
        assert "note" in run.types


def test_schema_is_found_whoever_created_it() -> None:
    schemas = ["anna_mult", "bert_add", "old_style"]
    assert find_schema(schemas, "mult") == "anna_mult"
    assert find_schema(schemas, "ADD") == "bert_add"
    assert find_schema(schemas, "old_style") == "old_style"
    assert find_schema(schemas, "style") == "old_style"
    assert find_schema(schemas, "multi") is None
    assert schema_name("a_Study") == "a_study"
    assert schema_name("Study").endswith("_study")
