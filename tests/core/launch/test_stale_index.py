"""A launcher whose index is behind the database takes no run for what it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import pytest
from ZODB.POSException import ConflictError

from motoko_core import cleaning
from motoko_core.cleaning import clean
from motoko_core.errors import MotokoError
from motoko_core.launch import records
from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.session import transact
from motoko_core.study.direct_runs import DirectRuns
from motoko_core.study.index import RunIndex
from motoko_core.study.runs import SessionRuns
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import create_tasks, number
from tests.launching import entries_of, launching, read_line, release, settled, soon


async def test_a_run_that_was_just_launched_is_not_taken_for_one_that_was_reset(
    scripts: Workflow, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}")
    index = scripts.mult.database.index
    index.refresh()
    update, offered_again, offers = RunIndex._take_in, asyncio.Event(), []
    # From here on it keeps the state that the run had before it was launched.
    monkeypatch.setattr(RunIndex, "_take_in", lambda self: [] if self is index else update(self))
    wanted = Launcher._without_earlier

    async def noted(self: Launcher, manager: object, run_ids: list[int]) -> list[int]:
        offers.append(run_ids)
        answer = await wanted(self, manager, run_ids)  # type: ignore[arg-type]
        if offers.count([number(first)]) == 2:
            offered_again.set()
        return answer

    monkeypatch.setattr(Launcher, "_without_earlier", noted)
    async with launching(scripts) as launcher:
        await read_line(fifo)
        assert index.rows.value(number(first), "state") == "CREATED"
        launcher._changes[scripts.mult].put(rescan=True)
        await soon(offered_again.wait())
        monkeypatch.setattr(RunIndex, "_take_in", update)
        launcher._feeds[scripts.mult].rescan()
        await release(fifo)
        (entries,) = await settled(scripts, first)
    assert entries["state"] == "FINISHED"


def test_a_run_that_is_deleted_while_it_is_launched_is_one_of_both(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    study, run_id = scripts.mult.database, number(run)
    service = Service(generator=BashGenerator(), name="bash")
    transact("the test", lambda: SessionRuns(study).add_file("requirements.txt", records._requirements()))
    study.index.refresh()
    direct = DirectRuns(study)
    direct.begin()
    launched, _ = records.launch(scripts.mult, direct, {run_id: "motoko-x"}, service)
    assert [launch.task.task for launch in launched] == [run]
    clean(scripts.mult, [run_id], delete=True)
    with pytest.raises(ConflictError):
        direct.commit("the test")
    direct.begin()  # the index knows nothing of it yet
    assert records.launch(scripts.mult, direct, {run_id: "motoko-x"}, service) == ([], {})


def test_the_directory_of_a_run_that_waits_is_not_removed_under_a_launcher(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a launch that begins before the directory is removed and of the cleaning, one comes too late."""
    first, second = create_tasks(scripts, label=["true", "false"])
    study = scripts.mult.database
    tags = {number(run): f"motoko-{run}" for run in (first, second)}
    directory = records.run_directory(scripts.mult, number(first))
    directory.mkdir(parents=True)
    service, remove, removed = Service(generator=BashGenerator(), name="bash"), cleaning._remove, []
    transact("the test", lambda: SessionRuns(study).add_file("requirements.txt", records._requirements()))
    study.index.refresh()
    direct = DirectRuns(study)
    direct.begin()
    launched, _ = records.launch(scripts.mult, direct, tags, service)
    assert [launch.task.task for launch in launched] == [first, second]

    def launch() -> object:
        return records.launch(scripts.mult, SessionRuns(study), tags, service)

    def launch_meanwhile(directories: list[Path]) -> None:
        with pytest.raises(ConflictError):
            direct.commit("the test")
        assert transact("the test", launch) == ([], {})
        remove(directories)
        removed.append(directories)

    monkeypatch.setattr(cleaning, "_remove", launch_meanwhile)
    assert clean(scripts.mult, list(tags)) == 2
    assert len(removed) == 1
    assert not directory.exists()
    assert [entries_of(scripts, run)["state"] for run in (first, second)] == ["CREATED"] * 2


def test_the_next_clean_goes_on_where_one_was_killed(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = map(str, create_tasks(scripts, label=["true", "false"]))
    with monkeypatch.context() as patch:
        patch.setattr(cleaning, "_remove", Mock(side_effect=KeyboardInterrupt))
        transact_until_then = cleaning.transact
        patch.setattr(
            cleaning,
            "transact",
            lambda what, work: None if "release" in what else transact_until_then(what, work),
        )
        with pytest.raises(KeyboardInterrupt):
            clean(scripts.mult, [number(run)])
    assert entries_of(scripts, run)["state"] == "TOBELAUNCHED"
    cleaning.refuse_under_way(scripts.mult, [number(run), number(other)])
    assert clean(scripts.mult, [number(run), number(other)]) == 2
    for reference in (run, other):
        entries = entries_of(scripts, reference)
        assert entries["state"] == "CREATED"
        assert "motoko_cancel" not in entries


def test_of_two_that_clean_the_same_run_one_is_told(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = create_tasks(scripts, label="true")
    remove = cleaning._remove

    def clean_meanwhile(directories: list[Path]) -> None:
        monkeypatch.setattr(cleaning, "_remove", remove)
        assert clean(scripts.mult, [number(run)]) == 1
        scripts.mult.database.db.storage.catch_up()
        remove(directories)

    monkeypatch.setattr(cleaning, "_remove", clean_meanwhile)
    with pytest.raises(MotokoError, match="were reset meanwhile"):
        clean(scripts.mult, [number(run)])
    assert entries_of(scripts, run)["state"] == "CREATED"


def test_runs_that_could_not_be_cleaned_wait_as_before(
    scripts: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = create_tasks(scripts, label="true")
    records.run_directory(scripts.mult, number(run)).mkdir(parents=True)
    monkeypatch.setattr(cleaning, "_remove", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        clean(scripts.mult, [number(run)])
    assert entries_of(scripts, run)["state"] == "CREATED"


def test_a_run_that_is_launched_is_not_deleted(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    study, run_id = scripts.mult.database, number(run)
    service = Service(generator=BashGenerator(), name="bash")

    def launch() -> None:
        records.launch(scripts.mult, SessionRuns(study), {run_id: "motoko-x"}, service)

    transact("the test", launch)
    with pytest.raises(Exception, match="are being executed"):
        clean(scripts.mult, [run_id], delete=True)
    assert entries_of(scripts, run)["state"] == "launched"
