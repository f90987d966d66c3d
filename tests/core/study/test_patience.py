"""Calls to a server that is paused, or busy, in the middle of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.Connection import TransactionMetaData

from motoko_core.daemons import wait_until
from motoko_core.study import patience
from motoko_core.study.client import StudyClient
from motoko_core.study.database import Database
from motoko_core.study.patience import PatientThread
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers
from tests.conftest import TIMEOUT_S
from tests.processes import runzeo


@pytest.fixture
def database(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One that is connected, with something in it that is in no cache."""
    monkeypatch.setattr(patience, "PATIENCE_S", 0.05)
    start_servers([server])
    for _ in range(2):
        database = Database(server)
        manager = transaction.TransactionManager()
        root = database.open(manager).root()
        if not root:
            root["it"] = PersistentMapping(word="yes")
            manager.commit()
            manager.abort()
            database.close()
    yield database
    database.close()


def word(database: Database) -> str:
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    try:
        return str(connection.root()["it"]["word"])
    finally:
        manager.abort()
        connection.close()


def commit(database: Database) -> None:
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    connection.root()["more"] = PersistentMapping(word="more")
    manager.commit()
    connection.close()


def test_script_waits_for_a_paused_server_and_says_so(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "motoko")
    process = runzeo(database)
    process.suspend()
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(word, database)
        assert wait_until(lambda: "does not answer" in caplog.text, TIMEOUT_S)
        process.resume()
        assert reading.result(TIMEOUT_S) == "yes"
    assert [record.getMessage().count("answers again") for record in caplog.records] == [0, 1]


def test_call_fails_at_a_paused_server_that_is_waited_for_elsewhere(database: Database) -> None:
    database.pulse.is_awaited = True
    database.pulse.heard()
    process = runzeo(database)
    process.suspend()
    try:
        for _ in range(2):  # the second one finds no connection
            with pytest.raises(ClientDisconnected):
                word(database)
            assert not database.pulse.is_fresh
    finally:
        process.resume()
    assert wait_until(database.db.storage.is_connected, TIMEOUT_S)  # by itself
    assert word(database) == "yes"


def test_commit_that_waits_for_somebody_elses_is_not_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.pulse.is_awaited = True
    answers: list[bool] = []
    is_silent = StudyClient.is_silent

    def looking(self: StudyClient) -> bool:
        answers.append(is_silent(self))
        return answers[-1]

    monkeypatch.setattr(StudyClient, "is_silent", looking)
    other = StudyClient(database.server, wait_timeout=TIMEOUT_S)
    txn = TransactionMetaData()
    other.tpc_begin(txn)
    other.tpc_vote(txn)  # from now on nobody else can commit
    monkeypatch.setattr(patience, "_PER_OBJECT_S", 0.0)
    with ThreadPoolExecutor() as pool:
        committing = pool.submit(commit, database)
        assert wait_until(lambda: len(answers) >= 2, TIMEOUT_S)
        other.tpc_abort(txn)
        committing.result(TIMEOUT_S)
    other.close()
    assert not any(answers)


@pytest.mark.parametrize("step", ["vote", "finish"])
def test_what_the_server_does_for_this_client_may_take_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    database.pulse.is_awaited = True
    monkeypatch.setattr(patience, "_PER_OBJECT_S", 1000.0)
    process = runzeo(database)
    looks: list[float] = []
    allowing, may_last = PatientThread.allowing, PatientThread._may_last

    def stopping(self: PatientThread, seconds: float) -> Any:
        if (step == "finish") == (seconds == float("inf")):
            process.suspend()
            calls.append(pool.submit(database.db.storage.catch_up))
        return allowing(self, seconds)

    def looking(self: PatientThread, seconds: float) -> bool:
        looks.append(seconds)
        return may_last(self, seconds)

    monkeypatch.setattr(PatientThread, "allowing", stopping)
    monkeypatch.setattr(PatientThread, "_may_last", looking)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(commit, database)]
        assert wait_until(lambda: len(looks) > 5, TIMEOUT_S)
        process.resume()
        for call in calls:
            call.result(TIMEOUT_S)
    assert len(calls) == 2
