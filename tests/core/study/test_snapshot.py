"""Reading a study from its file, while a server serves it or not."""

from __future__ import annotations

import datetime
import decimal
import gc
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.list import PersistentList
from ZODB.FileStorage import FileStorage

from motoko_core import lifecycle
from motoko_core.config import load_study_config
from motoko_core.errors import StudyError
from motoko_core.session import transact
from motoko_core.study import record_file
from motoko_core.study.snapshot import FileSnapshot, snapshot
from motoko_core.workflow import Workflow
from tests.conftest import create_tasks, set_state, stop_everything, write_workflow
from tests.reading import everything, read_both_ways

YAML = "task_managers: {mult: }\norchestrator: orchestrator.main\n"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A workflow of this module's own: others leave values in the shared one that do not equal themselves."""
    directory = Path(tempfile.mkdtemp(prefix="mtk-"))
    workflow = Workflow(write_workflow(directory, studies=("mult",), yaml=YAML))
    lifecycle.create_missing(workflow)
    yield directory
    stop_everything(workflow)
    shutil.rmtree(directory)


@pytest.fixture
def workflow(directory: Path, request: pytest.FixtureRequest) -> Iterator[Workflow]:
    workflow = Workflow(directory / "motoko.yaml")
    workflow.run_name = request.node.name
    yield workflow
    transaction.abort()
    lifecycle.disconnect(workflow)


def change(workflow: Workflow, reference: str, **attributes: Any) -> None:
    """Set attributes of a run, as a script does."""

    def work() -> None:
        ((run,),) = workflow.get_runs([reference]).values()
        for name, value in attributes.items():
            setattr(run, name, value)

    transact("the test", work)


def delete(workflow: Workflow, *run_ids: int) -> None:
    def work() -> None:
        runs = workflow.mult.base._get_runs().entries
        for run_id in run_ids:
            del runs[run_id]

    transact("the test", work)


def of_run_name(workflow: Workflow, found: list[Any]) -> list[Any]:
    return [item for item in found if item[1].get("run_name") == workflow.run_name]


@pytest.fixture
def study(tmp_path: Path, workflow: Workflow) -> Path:
    """The directory of a copy of a study with three runs, which no server has opened."""
    (first, _, _) = create_tasks(workflow, x=[1.0, 2.0, 3.0], label="it")
    set_state(workflow, first, "FINISHED")
    copy = tmp_path / "mult"
    (copy / ".bd").mkdir(parents=True)
    shutil.copy(Path(workflow.mult.study_dir) / "bd.yaml", copy)
    shutil.copy(workflow.mult.database.server.data, copy / ".bd")
    return copy


@pytest.fixture
def data(study: Path) -> Path:
    """The database of the copy."""
    return study / ".bd" / "bd.zeo"


# ------------------------------------------------------------------ what is read


def test_all_that_a_run_holds_is_read_while_a_server_serves_it(workflow: Workflow) -> None:
    run, other = create_tasks(workflow, x=[1.5, 2.5], n=3, items=[[1, 2]], run_params={"note": "it"})
    values = {"y": [1.0, {"a": None}], "Z": NOW, "price": decimal.Decimal("1.5"), "step": 2 + 1j}
    change(workflow, run, **values)
    set_state(workflow, run, "FAILED", motoko_failure={"reason": "EXIT_CODE", "exit_code": 7}, start_time=NOW)

    def push() -> None:
        ((run_object,),) = workflow.get_runs([other]).values()
        run_object.quantities["energy"] = "/there/energy.csv"

    transact("the test", push)
    found = of_run_name(workflow, read_both_ways(workflow.mult.study_dir))
    assert [f"mult.{item[0]}" for item in found] == [run, other]
    (_, entries, attributes, quantities, job), second = found
    assert (entries["state"], entries["motoko_failure"]["exit_code"], entries["note"]) == ("FAILED", 7, "it")
    assert attributes == {name.lower(): value for name, value in values.items()}
    assert quantities == {}
    assert job[0]["items"] == [[1, 2]]
    assert second[3] == {"energy": "/there/energy.csv"}


def test_runs_with_many_entries_and_deleted_runs_are_read(workflow: Workflow) -> None:
    references = create_tasks(workflow, x=[float(i) for i in range(70)])  # more than a bucket holds
    set_state(workflow, references[5], "FINISHED", **{f"entry{i}": i for i in range(50)})
    ids = [int(reference.rpartition(".")[2]) for reference in references]
    delete(workflow, ids[0], *ids[10:60])
    found = of_run_name(workflow, read_both_ways(workflow.mult.study_dir))
    assert [item[0] for item in found] == [*ids[1:10], *ids[60:]]
    assert {f"entry{i}" for i in range(50)} <= found[4][1].keys()


def test_empty_study_has_no_runs(make_workflow: Callable[..., Workflow]) -> None:
    workflow = make_workflow(
        studies=("mult",), yaml="task_managers: {mult: }\norchestrator: orchestrator.main\n"
    )
    workflow.mult.database.server.directory.mkdir(mode=0o700)
    workflow.mult.database.create()
    assert read_both_ways(workflow.mult.study_dir) == []


def test_file_is_read_in_pieces_of_any_size(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_both_ways(study)
    monkeypatch.setattr(record_file, "_USUAL_LENGTH", 50)
    for length in (50, 51, 97, 1000):
        monkeypatch.setattr(record_file, "_CHUNK", length)
        assert read_both_ways(study) == expected


def test_what_is_no_plain_value_is_read_with_zodb_at_the_same_moment(workflow: Workflow) -> None:
    first, second, third = create_tasks(workflow, x=[1.0, 2.0, 3.0])
    change(workflow, second, y=PersistentList([1, 2]))
    config = load_study_config(workflow.mult.study_dir)
    with snapshot("mult", config, None) as content:
        assert isinstance(content, FileSnapshot)
        set_state(workflow, first, "FINISHED")
        set_state(workflow, third, "FINISHED")
        runs = {f"mult.{run.id}": run for run in content.runs()}
        assert [runs[name].entries["state"] for name in (first, second, third)] == ["CREATED"] * 3
        assert runs[second].attributes["y"] == [1, 2]
        assert isinstance(runs[second].attributes["y"], PersistentList)
        ids = [run.id for run in content.runs()]
        assert ids == sorted(set(ids))
    delete(workflow, int(second.rpartition(".")[2]))  # the directory is shared


def test_value_that_is_an_object_inside_a_list_is_read_with_zodb(workflow: Workflow) -> None:
    (run,) = create_tasks(workflow, x=1.0)
    set_state(workflow, run, "START", nested=[{"tree": OOBTree({1: 2})}])
    with snapshot("mult", load_study_config(workflow.mult.study_dir), None) as content:
        (found,) = [r for r in content.runs() if f"mult.{r.id}" == run]
        assert dict(found.entries["nested"][0]["tree"]) == {1: 2}
    delete(workflow, int(run.rpartition(".")[2]))


# ------------------------------------------------------------------ while somebody writes


def test_snapshot_is_of_one_moment_while_a_server_writes(workflow: Workflow) -> None:
    references = create_tasks(workflow, x=[float(i) for i in range(20)])
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1

            def work(state: str = f"S{number}") -> None:
                for runs in workflow.get_runs(references).values():
                    for run in runs:
                        run.entries["state"] = state

            transact("the test", work)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen: list[str] = []
        while len(set(seen)) < 10:
            with snapshot("mult", load_study_config(workflow.mult.study_dir), None) as content:
                found = {item[1]["state"] for item in of_run_name(workflow, everything(content))}
                assert "_plain" not in vars(content)
            assert len(found) == 1
            seen += found
    finally:
        stop.set()
        writer.join()
    numbers = [int(state[1:]) for state in seen if state != "CREATED"]
    assert numbers == sorted(numbers)


def test_transaction_that_is_not_finished_does_not_show(study: Path, data: Path) -> None:
    expected = read_both_ways(study)
    storage = FileStorage(str(data))
    manager = transaction.TransactionManager()
    connection = ZODB.DB(storage).open(manager)
    connection.root()["new"] = 1
    meta = manager.get()
    connection.tpc_begin(meta)
    connection.commit(meta)
    size = data.stat().st_size
    connection.tpc_vote(meta)
    assert data.stat().st_size > size
    try:
        assert read_both_ways(study) == expected
    finally:
        connection.tpc_abort(meta)
        connection.close()
        connection.db().close()


def test_snapshot_outlives_a_pack(study: Path, data: Path) -> None:
    expected = read_both_ways(study)
    with snapshot("it", load_study_config(study), None) as content:
        db = ZODB.DB(FileStorage(str(data)))
        db.pack()
        db.close()
        assert everything(content) == expected
    assert read_both_ways(study) == expected


# ------------------------------------------------------------------ torn, damaged


def test_file_that_is_torn_at_the_end_is_read_as_zodb_reads_it(study: Path, data: Path) -> None:
    whole = data.read_bytes()
    read_both_ways(study)
    (data.parent / "bd.zeo.index").unlink(missing_ok=True)
    last = whole.rindex(b"FINISHED") - 200
    for size in (*range(last, len(whole), max(1, (len(whole) - last) // 10)), len(whole) - 1):
        data.write_bytes(whole[:size])
        read_both_ways(study)
    data.write_bytes(whole + b"\0" * 10)
    read_both_ways(study)


def read(study: Path) -> None:
    """Read all of a study that is damaged. FileStorage does not close a file that it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with snapshot("it", load_study_config(study), None) as content:
                everything(content)
        finally:
            gc.collect()


@pytest.mark.parametrize("place", ["transaction", "record", "magic", "everything"])
def test_damaged_file_is_refused_with_what_can_be_done(study: Path, data: Path, place: str) -> None:
    whole = bytearray(data.read_bytes())
    if place == "magic":
        whole[:4] = b"FS00"
    elif place == "transaction":
        whole[4 + 8 : 4 + 16] = (24).to_bytes(8, "big")
    elif place == "record":
        user, description, extension = (int.from_bytes(whole[at : at + 2], "big") for at in (21, 23, 25))
        record = 4 + record_file._TRANSACTION.size + user + description + extension
        whole[record + 34 : record + 42] = (10**6).to_bytes(8, "big")
    else:
        whole = bytearray(os.urandom(1000))
    data.write_bytes(whole)
    refused = r"the database of study 'it' is damaged|no database of study 'it': .*bd\.zeo begins with"
    with pytest.raises(StudyError, match=refused) as raised:
        read(study)
    assert "backup" in str(raised.value)


def test_object_that_cannot_be_unpickled_is_reported_as_damage(study: Path, data: Path) -> None:
    whole = bytearray(data.read_bytes())
    place = whole.rindex(b"FINISHED")
    whole[place - 1] = 0xFF
    whole[place - 6 : place] = b"\xff" * 6
    data.write_bytes(whole)
    with pytest.raises(StudyError, match=r"bd\.zeo: the database of study 'it' is damaged"):
        read(study)


def test_missing_file_is_an_error_that_names_it(study: Path, data: Path) -> None:
    data.unlink()
    with pytest.raises(StudyError, match=r"cannot read .*bd\.zeo: No such file"):
        read(study)


# ------------------------------------------------------------------ elsewhere


def test_study_on_another_machine_is_asked_of_its_server(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tasks(workflow, x=[1.0, 2.0])
    expected = of_run_name(workflow, read_both_ways(workflow.mult.study_dir))
    monkeypatch.setattr("motoko_core.study.server.Server.is_local", False)
    with snapshot("mult", load_study_config(workflow.mult.study_dir), None) as content:
        assert of_run_name(workflow, everything(content)) == expected


def test_renamed_study_is_an_error(study: Path) -> None:
    path = study / "bd.yaml"
    path.write_text(path.read_text().replace("study: mult", "study: other"))
    with pytest.raises(StudyError, match="holds no study 'other'"):
        read(study)


def test_database_of_something_else_is_an_error(study: Path, data: Path) -> None:
    data.unlink()
    ZODB.DB(FileStorage(str(data))).close()
    with pytest.raises(StudyError, match="holds no study 'mult', only"):
        read(study)


@pytest.mark.parametrize("size", [4, 40])
def test_file_that_is_torn_in_its_first_transaction_is_refused(study: Path, data: Path, size: int) -> None:
    data.write_bytes(data.read_bytes()[:size])
    with pytest.raises(StudyError, match=r"the database of study 'it' is damaged: no transaction is whole"):
        read(study)
