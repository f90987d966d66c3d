from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from motoko_core.cli.main import main
from motoko_core.workflow import Workflow
from tests.core.cli.conftest import Tiny
from tests.processes import run_python

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def done(tiny: Tiny) -> Tiny:
    """Two workflow runs have been executed; one of the tasks has failed."""
    tiny.motoko("run", "-n", "a", "--count", "2")
    tiny.write(launch="#!/bin/bash\nexit 7\n")
    tiny.motoko("run", "-n", "b", "--count", "1", code=1)
    return tiny


def info(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "info", *words])


def test_info_is_a_line_per_study_and_run_name_and_verbose_one_per_run(done: Tiny, capsys: Captured) -> None:
    assert info(done) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["study", "run_name", "runs", "states"],
        ["first", "a", "2", "2", "FORWARDED"],
        ["first", "b", "1", "1", "FAILED"],
        ["second", "a", "2", "2", "FINISHED"],
    ]
    assert done.processes() == []

    assert info(done, "--verbose", "--bd-study", "first") == 0
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if line.startswith("first.")] == [
        ["first.1", "1", "a", "main", "FORWARDED", "x=0", "-"],
        ["first.2", "2", "a", "main", "FORWARDED", "x=1", "-"],
        ["first.3", "1", "b", "main", "FAILED", "x=0", "EXIT_CODE", "(exit", "code", "7)"],
    ]
    assert "second." not in text
    assert "first has no launcher; its server is " in text

    assert info(done, "--json", "--verbose") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["workflow"] == str(done.path / "motoko.yaml")
    assert content["orchestrator_pid"] is None
    assert content["studies"]["first"]["states"] == {"a": {"FORWARDED": 2}, "b": {"FAILED": 1}}
    assert content["studies"]["first"]["runs"][2]["failure"]["exit_code"] == 7
    jobs = [run["job"] for run in content["studies"]["second"]["runs"]]
    assert sorted(job["x"] for job in jobs) == [0, 10]


def test_info_of_studies_without_runs(tiny: Tiny, capsys: Captured) -> None:
    assert info(tiny) == 1
    assert "were not created yet" in capsys.readouterr().err
    main(["-C", str(tiny.path), "create"])
    capsys.readouterr()
    assert info(tiny, "--verbose") == 0
    text = capsys.readouterr().out
    assert "first   -         0     no runs" in text
    assert "first: no runs" in text


def test_info_forwards_to_blackdynamite(tiny: Tiny) -> None:
    tiny.motoko("run", "-n", "a", "--count", "2")
    result = tiny.motoko("info", "--bd_study", "first", "-", "runs", "info")
    assert "FORWARDED" in result.stdout
    assert "# first" in result.stderr
    assert "# second" not in result.stderr


def test_info_in_a_pipe_has_no_colours(done: Tiny) -> None:
    assert "\x1b" not in done.motoko("info", "--verbose").stdout


def test_info_imports_neither_blackdynamite_nor_zodb(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow()
    for manager in workflow.task_managers.values():
        manager.database.server.directory.mkdir(mode=0o700)
        manager.database.create()
    script = """
        import sys
        from motoko_core.cli.main import main

        assert main(["-C", sys.argv[1], "info"]) == 0
        heavy = {"BlackDynamite", "ZODB", "asyncio", "pandas"}
        print({name.partition(".")[0] for name in sys.modules} & heavy)
    """
    assert run_python(script, workflow.directory).splitlines()[-1] == "set()"


def test_info_of_an_unknown_study_names_the_nearest(workflow: Workflow, capsys: Captured) -> None:
    assert main(["-C", workflow.directory, "info", "--bd-study", "mul"]) == 2
    assert "Did you mean 'mult'?" in capsys.readouterr().err
    assert main(["-C", workflow.directory, "info", "--bd-study", "plus"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("add ")
