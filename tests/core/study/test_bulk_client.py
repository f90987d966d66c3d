"""Commits whose answer is lost: what has happened is found out; nothing is lost, and nothing doubled.

And object ids: they are there when they are needed, and no two objects get the same one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
import transaction
from ZEO.Exceptions import ClientDisconnected

from motoko_core.daemons import wait_until
from motoko_core.session import transact
from motoko_core.study.database import Database
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers, stop_servers
from motoko_core.workflow import Workflow
from tests.conftest import orchestrate, states
from tests.processes import runzeo


class Proxy:
    """Stands between a client and its server, on a Unix socket, and cuts the connection in a commit.

    :param before: cut it before the server gets the last step of the commit; else before its answer arrives.
    """

    def __init__(self, path: Path, server: str, *, before: bool) -> None:
        #: Set by the test when the next commit is to be cut.
        self.is_armed = False
        self.has_cut = threading.Event()
        self._server = server
        self._before = before
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                finishing = threading.Event()
                for source, target, is_request in ((client, server, True), (server, client, False)):
                    arguments = (source, target, finishing, is_request)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(
        self, source: socket.socket, target: socket.socket, finishing: threading.Event, is_request: bool
    ) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 20):
                if is_request and self.is_armed and b"tpc_finish" in data:
                    finishing.set()
                    if self._before:
                        break
                elif not is_request and finishing.is_set():
                    break
                target.sendall(data)
            if finishing.is_set():
                self.is_armed = False
                self.has_cut.set()
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@attrs.frozen(kw_only=True)
class Proxied(Server):
    """A server that is reached through a proxy."""

    proxy: Path

    @property
    def address(self) -> str:
        return str(self.proxy)


@pytest.fixture
def through_proxy(workflow: Workflow) -> Iterator[Callable[[bool], Proxy]]:
    """Have the workflow's connections to ``mult`` go through a proxy."""
    proxies: dict[Path, Proxy] = {}
    database = workflow.mult.database

    def connect(before: bool) -> Proxy:
        path = Path(workflow.directory) / f"proxy{len(proxies)}-{workflow.run_name}"
        proxies[path] = Proxy(path, str(database.server.address), before=before)
        database.close()
        database.server = Proxied(**attrs.asdict(database.server, recurse=False), proxy=path)
        return proxies[path]

    yield connect
    transaction.abort()
    database.close()
    for path, proxy in proxies.items():
        proxy.close()
        path.unlink()


CUTS = pytest.mark.parametrize("before", [True, False], ids=["before the server", "before the answer"])


def xs(workflow: Workflow) -> list[float]:
    return transact("look", lambda: [job.x for _, job in workflow.mult.select()])


@CUTS
def test_commit_says_what_has_happened(
    workflow: Workflow, through_proxy: Callable[[bool], Proxy], before: bool
) -> None:
    proxy = through_proxy(before)
    ((run, _),) = workflow.mult.createTask(x=1.0)
    proxy.is_armed = True
    if before:
        with pytest.raises(ClientDisconnected):
            transaction.commit()
        transaction.abort()
        assert xs(workflow) == []
        workflow.mult.createTask(x=1.0)
    transaction.commit()
    assert proxy.has_cut.is_set()
    assert xs(workflow) == [1.0]
    if not before:
        # The objects of the commit can be used on.
        run.state = "FINISHED"
        transaction.commit()
        assert list(states(workflow).values()) == ["FINISHED"]


@CUTS
def test_task_that_is_committed_at_once_is_created_once(
    workflow: Workflow, through_proxy: Callable[[bool], Proxy], before: bool
) -> None:
    proxy = through_proxy(before)
    workflow.mult.select()
    proxy.is_armed = True
    ((run, _),) = workflow.mult.createTask(x=1.0, commit=True)
    assert proxy.has_cut.is_set()
    assert list(states(workflow)) == [run.id]


@CUTS
async def test_firing_is_neither_lost_nor_repeated(
    workflow: Workflow, through_proxy: Callable[[bool], Proxy], before: bool
) -> None:
    proxy = through_proxy(before)
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
    assert xs(workflow) == ([2.0] if before else [1.0])
    assert len(calls) == (2 if before else 1)


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
