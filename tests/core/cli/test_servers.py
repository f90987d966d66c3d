from __future__ import annotations

import json
import os
import signal

import pytest

from motoko_core.cli.main import main
from motoko_core.workflow import Workflow
from tests.core.cli.conftest import Tiny

Captured = pytest.CaptureFixture[str]


def servers(tiny: Tiny, *words: str) -> int:
    return main(["-C", str(tiny.path), "servers", *words])


def test_servers_is_a_line_per_study_and_one_for_the_variables(tiny: Tiny, capsys: Captured) -> None:
    assert servers(tiny) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "server"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "study 'first'",
        "study 'second'",
        "the workflow variables",
    ]
    assert all("not created" in line for line in lines[1:])

    tiny.motoko("create")
    assert servers(tiny) == 0
    text = capsys.readouterr().out
    assert text.count(" up ") == 3
    assert str(tiny.path / "first" / ".bd" / "zeo.socket") in text

    assert servers(tiny, "--json") == 0
    first, second, variables = json.loads(capsys.readouterr().out)
    assert (first["study"], second["study"], variables["study"]) == ("first", "second", None)
    assert {found["state"] for found in (first, second, variables)} == {"up"}
    assert first["clients"] == 0
    assert first["size"] == (tiny.path / "first" / ".bd" / "bd.zeo").stat().st_size
    assert first["last_commit"].endswith("+00:00")

    os.kill(first["pid"], signal.SIGSTOP)
    try:
        assert servers(tiny) == 1
    finally:
        os.kill(first["pid"], signal.SIGCONT)
    paused, other, _ = capsys.readouterr().out.splitlines()[1:]
    assert f"does not answer  {first['pid']}" in paused
    assert "up" in other


def test_servers_that_are_down_stay_down(tiny: Tiny, capsys: Captured) -> None:
    tiny.motoko("run", "-n", "a")
    assert servers(tiny) == 0
    assert capsys.readouterr().out.count(" down ") == 3
    (tiny.path / "first" / ".bd" / "bd.zeo").write_bytes(b"")
    assert servers(tiny) == 1
    assert " no database " in capsys.readouterr().out
    assert tiny.processes() == []


def test_pack_works_while_the_workflow_runs(
    tiny: Tiny, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.core.cli.conftest import BUSY_SH, TIMEOUT_S

    monkeypatch.setattr("motoko_core.study.packing.MARGIN_S", 0.0)
    tiny.write(launch=BUSY_SH)
    with tiny.started("run", "-n", "a", "--count", "3") as process:
        tiny.wait_for("busy")
        assert main(["-C", str(tiny.path), "pack"]) == 0
        first, second, variables = capsys.readouterr().out.splitlines()
        (tiny.path / "go").touch()
        assert process.wait(TIMEOUT_S) == 0
    old = tiny.path / "first" / ".bd" / "bd.zeo.old"
    assert first.startswith("study 'first': ")
    assert " -> " in first
    assert f"; {old} keeps what was there before (" in first
    assert old.exists()
    assert second.startswith("study 'second': ")
    assert variables.startswith("the workflow variables: ")
    assert tiny.states() == {"first": ["FORWARDED"] * 3, "second": ["FINISHED"] * 3}


def test_pack_of_one_study_starts_its_server_and_stops_it(tiny: Tiny, capsys: Captured) -> None:
    tiny.motoko("run", "-n", "a")
    assert main(["-C", str(tiny.path), "pack", "--task", "first", "--days", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("study 'first': ")
    assert line.endswith("nothing to drop")
    assert tiny.processes() == []
    assert main(["-C", str(tiny.path), "pack", "--task", "frist"]) == 2
    assert "Did you mean 'first'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["-C", str(tiny.path), "pack", "--days", "-1"])
    assert "-1 is no number of days" in capsys.readouterr().err


def test_pack_waits_for_a_transaction_that_was_cut_short(tiny: Tiny, capsys: Captured) -> None:
    """What it is mended with is its record in the databases."""
    tiny.motoko("create")
    journal = tiny.path / ".wf" / "commit-1.journal"
    journal.touch()
    os.utime(journal, (0, 0))
    assert main(["-C", str(tiny.path), "pack"]) == 1
    error = capsys.readouterr().err
    assert f"{journal}: cannot pack: a transaction over several studies was cut short" in error
    assert "Start the orchestrator once" in error
    journal.unlink()
    assert main(["-C", str(tiny.path), "pack"]) == 0


def test_database_made_by_a_later_motoko_is_refused(tiny: Tiny, capsys: Captured) -> None:
    from motoko_core import lifecycle
    from motoko_core.session import transact

    tiny.motoko("create")
    workflow = Workflow(tiny.path / "motoko.yaml")

    def age() -> None:
        workflow.first.base.data.entries["motoko_schema"] += 1

    transact("the test", age)
    lifecycle.disconnect(workflow)
    for words in (["info"], ["run", "-n", "a"], ["clean"]):
        assert main(["-C", str(tiny.path), *words]) == 2
        error = capsys.readouterr().err
        assert "study 'first' was made by a later version of Motoko: its schema is 2, this version" in error
        assert "pip install --upgrade motoko" in error


def test_database_without_a_schema_is_accepted(tiny: Tiny) -> None:
    from motoko_core import lifecycle
    from motoko_core.session import transact

    tiny.motoko("create")
    workflow = Workflow(tiny.path / "motoko.yaml")

    def forget() -> None:
        del workflow.first.base.data.entries["motoko_schema"]

    transact("the test", forget)
    lifecycle.disconnect(workflow)
    tiny.motoko("run", "-n", "a")
