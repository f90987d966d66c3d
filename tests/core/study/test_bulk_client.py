"""Commits whose answer is lost: what has happened is found out; nothing is lost, and nothing doubled.

And object ids: they are there when they are needed, and no two objects get the same one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import transaction
from ZEO.Exceptions import ClientDisconnected

from motoko_core.daemons import wait_until
from motoko_core.session import Session, transact, use
from motoko_core.study.database import Database
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow, event
from tests.conftest import TIMEOUT_S, create_tasks, number, orchestrate, set_state, states
from tests.processes import kill_server, runzeo
from tests.proxy import BEFORE_THE_ANSWER, BEFORE_THE_SERVER, ON_THE_WAY, Proxy
from tests.zeo_clients import half_told

CUTS = pytest.mark.parametrize("place", [BEFORE_THE_SERVER, BEFORE_THE_ANSWER])
ONE_STUDY = """\
task_managers:
  mult:
orchestrator: orchestrator.main
"""


def xs(workflow: Workflow) -> list[float]:
    return transact("look", lambda: [job.x for _, job in workflow.mult.select()])


@CUTS
def test_commit_says_what_has_happened(
    workflow: Workflow, through_proxy: Callable[[str], Proxy], place: str
) -> None:
    proxy = through_proxy(place)
    ((run, _),) = workflow.mult.createTask(x=1.0)
    proxy.is_armed = True
    if place == BEFORE_THE_SERVER:
        with pytest.raises(ClientDisconnected):
            transaction.commit()
        transaction.abort()
        assert xs(workflow) == []
        workflow.mult.createTask(x=1.0)
    transaction.commit()
    assert proxy.has_cut.is_set()
    assert xs(workflow) == [1.0]
    if place == BEFORE_THE_ANSWER:
        # The objects of the commit can be used on.
        run.state = "FINISHED"
        transaction.commit()
        assert list(states(workflow).values()) == ["FINISHED"]


@CUTS
def test_task_that_is_committed_at_once_is_created_once(
    workflow: Workflow, through_proxy: Callable[[str], Proxy], place: str
) -> None:
    proxy = through_proxy(place)
    workflow.mult.select()
    proxy.is_armed = True
    ((run, _),) = workflow.mult.createTask(x=1.0, commit=True)
    assert proxy.has_cut.is_set()
    assert list(states(workflow)) == [run.id]


@pytest.mark.parametrize("place", [BEFORE_THE_SERVER, BEFORE_THE_ANSWER, ON_THE_WAY])
async def test_firing_is_neither_lost_nor_repeated(
    workflow: Workflow, through_proxy: Callable[[str], Proxy], place: str
) -> None:
    proxy = through_proxy(place)
    calls: list[int] = []

    def fired(workflow: Workflow) -> None:
        calls.append(1)
        workflow.mult.createTask(x=float(len(calls)))
        workflow.finished = True
        proxy.is_armed = len(calls) == 1

    async def main(workflow: Workflow) -> None:
        workflow.add_action("it", task="mult", event=lambda: True, f=fired)

    await orchestrate(workflow, main)
    assert proxy.has_cut.is_set()
    # The first attempt has happened, or the second one has.
    assert xs(workflow) == ([2.0] if place == BEFORE_THE_SERVER else [1.0])
    assert len(calls) == (2 if place == BEFORE_THE_SERVER else 1)


async def test_lost_commit_in_the_middle_of_main_is_not_taken_for_its_last(
    workflow: Workflow, through_proxy: Callable[[str], Proxy]
) -> None:
    proxy = through_proxy(BEFORE_THE_ANSWER)
    calls: list[int] = []

    def main(workflow: Workflow) -> None:
        calls.append(1)
        proxy.is_armed = len(calls) == 1
        with contextlib.suppress(ClientDisconnected):  # user code may do that
            workflow.mult.createTask(x=1.0, commit=True)
            workflow.mult.createTask(x=2.0)

    await orchestrate(workflow, main)
    assert len(calls) == 2
    assert xs(workflow) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("place", "is_held", "attempts"),
    [
        (BEFORE_THE_SERVER, False, 2),
        (BEFORE_THE_ANSWER, False, 1),
        (BEFORE_THE_ANSWER, True, 2),  # the new run that its caller has is cut off: it gets it again
    ],
)
async def test_event_that_is_called_directly_is_repeated_only_if_need_be(
    workflow: Workflow, through_proxy: Callable[[str], Proxy], place: str, is_held: bool, attempts: int
) -> None:
    proxy = through_proxy(place)
    calls, mains = [], []

    @event
    def create(workflow: Workflow) -> object:
        calls.append(1)
        tasks = workflow.mult.createTask(x=1.0)
        proxy.is_armed = len(calls) == 1
        return list(tasks) if is_held else None

    async def main(workflow: Workflow) -> None:
        mains.append(1)
        tasks: Any = await create(workflow)
        for run, _ in tasks or workflow.mult.select():
            run.state = "FINISHED"

    await orchestrate(workflow, main)
    assert proxy.has_cut.is_set()
    assert (len(calls), len(mains)) == (attempts, 1)
    assert list(states(workflow).values()) == ["FINISHED"]


@CUTS
def test_script_waits_for_a_server_that_died_in_its_commit(
    workflow: Workflow,
    through_proxy: Callable[[str], Proxy],
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = workflow.mult.database.server
    proxy = through_proxy(place)
    proxy.on_cut = lambda: kill_server(server)
    workflow.mult.createTask(x=1.0)
    workflow.mult.database.db.storage._server.timeout = 0.1  # the server stays away for longer

    def come_back() -> None:
        assert wait_until(lambda: "does not answer" in caplog.text, TIMEOUT_S)
        start_servers([server])

    coming = threading.Thread(target=come_back)
    coming.start()
    proxy.is_armed = True
    lost = pytest.raises(ClientDisconnected) if place == BEFORE_THE_SERVER else contextlib.nullcontext()
    with caplog.at_level(logging.WARNING, "motoko"), lost:
        transaction.commit()
    transaction.abort()
    coming.join()
    assert proxy.has_cut.is_set()
    assert xs(workflow) == ([] if place == BEFORE_THE_SERVER else [1.0])


# ------------------------------------------------------------------ object ids


@pytest.fixture
def databases(server: Server) -> Iterator[tuple[Database, Database]]:
    """Two connections to one server."""
    found = Database(server), Database(server)
    yield found
    for database in found:
        database.close()


def test_ids_are_there_while_the_server_is_busy(databases: tuple[Database, Database]) -> None:
    database, _ = databases
    client = database.db.storage
    ids = {client.new_oid()}
    client.ping()  # it answers in order
    server = runzeo(database)
    server.suspend()
    try:
        with ThreadPoolExecutor() as threads:
            ids.update(threads.submit(lambda: [client.new_oid() for _ in range(400)]).result(timeout=30))
    finally:
        server.resume()
    assert len(ids) == 401


def test_no_id_is_given_twice_when_the_server_was_started_again(
    server: Server, databases: tuple[Database, Database]
) -> None:
    mine, others = (database.db.storage for database in databases)
    mine.new_oid()
    mine.ping()
    assert others.is_connected()
    stop_servers([server])
    assert wait_until(lambda: not (mine.is_connected() or others.is_connected()), timeout_s=30)
    start_servers([server])
    for client in (mine, others):
        assert wait_until(client.is_connected, timeout_s=30)
    ids = [client.new_oid() for _ in range(600) for client in (mine, others)]
    assert len(set(ids)) == len(ids)


def test_transaction_goes_on_creating_when_the_server_was_started_again(
    make_workflow: Callable[..., Workflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motoko_core.study.records.PORTION", 20)  # so that they leave the memory
    workflow = make_workflow(studies=("mult",), yaml=ONE_STUDY)
    workflow.create(validated=True)
    workflow.run_name = "one"
    database = workflow.mult.database
    workflow.mult.createTask(x=[float(x) for x in range(200)])
    client = database.db.storage
    stop_servers([database.server])
    assert wait_until(lambda: not client.is_connected(), timeout_s=30)
    start_servers([database.server])
    assert wait_until(client.is_connected, timeout_s=30)
    workflow.mult.createTask(x=200.0)
    transaction.commit()
    database.close()
    assert xs(workflow) == list(range(201))


# --------------------------------------------------------------------------- what is told


def test_session_that_begins_sees_what_the_index_was_told_of(workflow: Workflow, other: Workflow) -> None:
    """Of all who read, the index hears of it first, and its listeners at once."""
    (reference,) = create_tasks(workflow, x=1.0)
    database = workflow.mult.database
    index = database.index
    index.refresh()
    assert list(states(workflow).values()) == ["CREATED"]  # leaves a connection in the pool
    finish = partial(set_state, other, reference, "FINISHED")
    with half_told(database.db.storage, index._storage, finish):
        index.refresh()
        assert index.rows.value(number(reference), "state") == "FINISHED"
        with use(Session("it")):
            ((run,),) = workflow.get_runs([reference]).values()
            assert run.state == "FINISHED"


def test_index_that_looks_sees_what_a_session_was_told_of(workflow: Workflow, other: Workflow) -> None:
    (reference,) = create_tasks(workflow, x=1.0)
    database = workflow.mult.database
    database.index.refresh()
    with use(Session("it")) as session:
        told = session.connection(database)._storage
        ((run,),) = workflow.get_runs([reference]).values()
        with half_told(database.db.storage, told, partial(set_state, other, reference, "FINISHED")):
            session.checkpoint()
            assert run.state == "FINISHED"
            start: bytes = told._start
            assert list(database.index.changed_since(start)) == []  # it has caught up
            assert database.index.rows.value(run.id, "state") == "FINISHED"
