"""A launcher whose index is behind the database takes no run for what it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ZODB.POSException import ConflictError

from motoko_core import cleaning, lifecycle
from motoko_core.cleaning import _Batch, clean
from motoko_core.errors import MotokoError
from motoko_core.exit_record import exit_record_path
from motoko_core.interfaces import Ended
from motoko_core.launch import endings, records, shutdown
from motoko_core.launch.launcher import Launcher
from motoko_core.launch.service import Service
from motoko_core.session import transact
from motoko_core.study.direct_runs import DirectRuns
from motoko_core.study.index import RunIndex
from motoko_core.study.runs import SessionRuns
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import create_tasks, number, set_state
from tests.core.launch.test_launcher import PYTHON_TASK
from tests.launching import entries_of, launching, read_line, release, settled, soon


async def test_a_job_whose_run_is_over_is_let_end_although_the_launcher_has_not_heard_of_it_yet(
    scripts: Workflow, fifo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has may stop the launcher within milliseconds."""
    monkeypatch.setattr(shutdown, "_GRACE_S", 60.0)
    task = PYTHON_TASK.format(
        end="run.finish()", after=f"echo > {fifo}; read < {fifo}; touch {tmp_path}/saved"
    )
    async with launching(scripts, keep_jobs=False) as launcher:
        (run,) = create_tasks(scripts, label=f"echo > {fifo}; read < {fifo}\n{task}")
        await read_line(fifo)
        database = scripts.mult.database
        await launcher._feeds[scripts.mult].current()
        storage, news = database.index._storage, []
        with monkeypatch.context() as patch:
            hear, ping = storage._invalidate, database.ping

            def ping_and_hear() -> None:
                ping()
                storage._invalidate = hear
                while news:
                    hear(*news.pop(0))

            patch.setattr(storage, "_invalidate", lambda *announced: news.append(announced))
            patch.setattr(database, "ping", ping_and_hear)
            await release(fifo)
            await read_line(fifo)
            assert database.index.rows.value(number(run), "state") == "launched"
            launcher.stop()
            while database.index.rows.value(number(run), "state") != "FINISHED":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await release(fifo)
    assert entries_of(scripts, run)["state"] == "FINISHED"
    assert (tmp_path / "saved").exists()


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
    directory = lifecycle.run_directory(scripts.mult, number(first))
    directory.mkdir(parents=True)
    service, set_aside, removed = Service(generator=BashGenerator(), name="bash"), _Batch._set_aside, []
    transact("the test", lambda: SessionRuns(study).add_file("requirements.txt", records._requirements()))
    study.index.refresh()
    direct = DirectRuns(study)
    direct.begin()
    launched, _ = records.launch(scripts.mult, direct, tags, service)
    assert [launch.task.task for launch in launched] == [first, second]

    def launch() -> object:
        return records.launch(scripts.mult, SessionRuns(study), tags, service)

    def launch_meanwhile(self: _Batch, run_ids: list[int], moved: list[Any]) -> None:
        with pytest.raises(ConflictError):
            direct.commit("the test")
        assert transact("the test", launch) == ([], {})
        set_aside(self, run_ids, moved)
        removed.append(run_ids)

    monkeypatch.setattr(_Batch, "_set_aside", launch_meanwhile)
    assert clean(scripts.mult, list(tags)) == 2
    assert len(removed) == 1
    assert not directory.exists()
    assert [entries_of(scripts, run)["state"] for run in (first, second)] == ["CREATED"] * 2


@pytest.fixture
def over(scripts: Workflow) -> tuple[str, Path]:
    """A run that is over, and the file with its result."""
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "FINISHED")
    result = lifecycle.run_directory(scripts.mult, number(run)) / "result"
    result.parent.mkdir(parents=True)
    result.touch()
    return run, result


def test_a_run_that_is_reset_while_it_is_cleaned_keeps_its_directory(
    scripts: Workflow, over: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error handler, for example; a launcher may have begun to execute it."""
    run, result = over
    set_aside = _Batch._set_aside

    def reset_meanwhile(self: _Batch, run_ids: list[int], moved: list[Any]) -> None:
        set_aside(self, run_ids, moved)
        set_state(scripts, run, "CREATED")
        scripts.mult.database.db.storage.catch_up()

    monkeypatch.setattr(_Batch, "_set_aside", reset_meanwhile)
    with pytest.raises(MotokoError, match="somebody else has changed"):
        clean(scripts.mult, [number(run)])
    assert result.exists()
    assert entries_of(scripts, run)["state"] == "CREATED"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["_set_aside", "_change"])
def test_runs_that_could_not_be_cleaned_are_as_before(
    scripts: Workflow, over: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, step: str, error: type
) -> None:
    run, result = over
    (waiting,) = create_tasks(scripts, label="false")
    monkeypatch.setattr(_Batch, step, Mock(side_effect=error))
    with pytest.raises(error):
        clean(scripts.mult, [number(waiting), number(run)])
    assert result.exists()
    assert entries_of(scripts, waiting)["state"] == "CREATED"
    assert entries_of(scripts, run)["state"] == "FINISHED"


def test_a_commit_that_was_interrupted_and_happened_all_the_same_brings_no_old_results_back(
    scripts: Workflow, over: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = over
    commit = cleaning.transact

    def interrupted(title: str, work: Any) -> Any:
        answer = commit(title, work)
        if title.endswith("reset"):
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(cleaning, "transact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clean(scripts.mult, [number(run)])
    assert entries_of(scripts, run)["state"] == "CREATED"
    assert not result.exists()


def test_the_end_of_a_job_that_is_heard_of_while_its_run_is_cleaned_changes_nothing(
    scripts: Workflow, over: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = over
    tag, handle = "motoko-x", '{"tag": "motoko-x", "generator": "bash"}'
    set_state(scripts, run, "FORWARDED", motoko_handle=handle)
    exit_record_path(result.parent, tag).write_text("started a-machine:bash:1\nended 0\n")

    def settle_meanwhile(self: _Batch, run_ids: list[int], moved: Any) -> None:
        ends = {number(run): (Ended(tag=tag, exit_code=0), "")}
        transact("the test", lambda: endings.settle(SessionRuns(scripts.mult.database), ends))
        raise KeyboardInterrupt

    monkeypatch.setattr(_Batch, "_set_aside", settle_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        clean(scripts.mult, [number(run)])
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_handle"]["tag"]) == ("FORWARDED", tag)
    assert "motoko_cancel" not in entries


@pytest.mark.parametrize("delete", [False, True])
def test_what_a_clean_was_killed_at_the_next_one_does_as_it_was_meant(
    scripts: Workflow, over: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    run, result = over
    (other,) = create_tasks(scripts, label="false")
    with monkeypatch.context() as patch:
        patch.setattr(_Batch, "_change", Mock(side_effect=KeyboardInterrupt))
        patch.setattr(_Batch, "_give_back", Mock())
        with pytest.raises(KeyboardInterrupt):
            clean(scripts.mult, [number(run)], delete=delete)
    assert entries_of(scripts, run)["state"] == "TOBELAUNCHED"
    cleaning.refuse_under_way(scripts.mult, [number(run)])
    assert clean(scripts.mult, [number(other)]) == 1
    entries = entries_of(scripts, run)
    assert entries.get("state") == (None if delete else "CREATED")
    assert "motoko_cancel" not in entries
    assert not result.exists()
    assert not list(result.parent.parent.glob(".cleaned-*"))


def test_a_directory_elsewhere_that_a_run_names_is_left_alone(
    scripts: Workflow, over: tuple[str, Path], tmp_path: Path
) -> None:
    """The runs of a copied workflow name the directories of the original."""
    run, result = over
    precious = tmp_path / "precious"
    precious.touch()
    set_state(scripts, run, "FINISHED", run_path=str(tmp_path))
    assert clean(scripts.mult, [number(run)]) == 1
    assert precious.exists()
    assert not result.exists()


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
