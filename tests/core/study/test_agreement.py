"""Index, feed and database agree, whatever two clients of a study and its server go through.

A Hypothesis state machine drives a real study: this process has the index and the feed, another one works
with Motoko's and BlackDynamite's own API (:mod:`tests.second_client`). What is true is read from the data
file. ``MOTOKO_HYPOTHESIS=search`` looks for new ways to make them disagree, for a quarter of an hour or so.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ZEO import runzeo
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from motoko_core import lifecycle
from motoko_core.daemons import wait_until
from motoko_core.session import Session, transact, use
from motoko_core.study.changes import Batch
from motoko_core.study.feed import ChangeFeed, feed_of
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, write_workflow
from tests.core.study.commands import COMMAND, COMMANDS, FIELD, PICK, POINTS
from tests.core.study.truth import NAMES, STATES, Truth, check_groups, check_selections, scalars, values
from tests.second_client import MOTOKO, SecondClient
from tests.zeo_clients import caught_up, falling_behind, reconnected

T = TypeVar("T")

SEARCHING = settings.get_current_profile_name() == "search"

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["ZEO.runzeo"])

YAML = "task_managers: {mult: }\norchestrator: orchestrator.main\n"
BD_YAML = "study: mult\njob:\n  x: float\n  items: list\nrun:\n  note: str\n  mark: float\n"
#: How long the feed may take to tell; less than what it trusts the announcements for (30 s).
FEED_S = 15.0
#: So short that it overflows now and then.
QUEUE = 3


class StudyServer:
    """The study's ZEO server with a short queue, without zdaemon, which waits in steps of a second."""

    def __init__(self, workflow: Workflow) -> None:
        self._server = workflow.mult.database.server
        config = self._server.config
        config.write_text(config.read_text().replace("queue-size 10000", f"queue-size {QUEUE}"))
        assert f"queue-size {QUEUE}\n" in config.read_text()
        self.start()

    def start(self) -> None:
        # Forked from a process that has ZEO imported already.
        self._process = FORKING.Process(target=runzeo.main, args=(["-C", str(self._server.config)],))
        self._process.start()
        assert wait_until(self._server.is_up, TIMEOUT_S)

    def stop(self, *, kill: bool = True) -> None:
        (self._process.kill if kill else self._process.terminate)()
        self._process.join(TIMEOUT_S)
        self._process.close()


class Agreement(RuleBasedStateMachine):
    """Client A is this process, client B is ``second``."""

    def __init__(self, second: SecondClient) -> None:
        super().__init__()
        self.second = second
        self.undo = contextlib.ExitStack()
        #: Checks in which nobody looks at the feed, then at the index either.
        self.nobody_looks = 0
        self.leave: Callable[[], Any] | None = None

    @initialize()
    def begin(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="mtk-"))
        self.undo.callback(shutil.rmtree, directory)
        path = write_workflow(directory, studies=("mult",), yaml=YAML)
        (directory / "mult" / "bd.yaml").write_text(BD_YAML)
        self.workflow = Workflow(path)
        self.database = self.workflow.mult.database
        self.database.create()
        self.server = StudyServer(self.workflow)
        self.undo.callback(self.server.stop)
        self.undo.callback(self.second.tell, "close")
        self.second.tell("open", str(directory))
        self.undo.callback(lifecycle.disconnect, self.workflow)
        self.storage = self.database.db.storage
        self.storage._server.client.connect_poll = 0.0  # seconds, beside the random one that it adds
        self.index = self.database.index
        self.look()
        self.loop = asyncio.new_event_loop()
        self.undo.callback(self.loop.close)
        self.follow()

    # ------------------------------------------------------------------ the subscriber

    def follow(self) -> None:
        """Keep a copy of what the feed tells, and of nothing else."""
        self.copy: dict[int, dict[str, Any]] = {}
        self.states: dict[int, str | None] = {}
        self.told: set[int] = set()
        self.feed = self.loop.run_until_complete(self.open_feed())
        self.last_heard = self.truth

    async def open_feed(self) -> ChangeFeed:
        feed = feed_of(self.database)
        self.undo.callback(lambda: self.loop.run_until_complete(feed.idle()))
        self.undo.enter_context(feed)
        self.changes = self.undo.enter_context(feed.changes())
        return feed

    def take(self, batch: Batch) -> None:
        if batch.rescan:  # told of everything
            with self.index.lock:  # no thread adds to it now, and what all of them have found is in the rows
                self.feed._deliver()
                self.changes.take()
                self.copy = {run_id: dict(row) for run_id, row in self.index.rows.items()}
            self.states = {run_id: row["state"] for run_id, row in self.copy.items()}
            self.told |= self.states.keys() | self.last_heard.rows.keys()
            return
        rows = self.index.rows
        for change in batch:
            assert self.states.get(change.run_id) == change.before
            self.states[change.run_id] = change.after
            self.told.add(change.run_id)
            if change.run_id in rows:
                self.copy[change.run_id] = dict(rows[change.run_id])
            else:
                self.copy.pop(change.run_id, None)

    def hear(self) -> None:
        """Wait until the feed has told all that happened since the last time."""
        before, after = self.last_heard.rows, self.truth.rows
        expected = {run_id: scalars(run) for run_id, (run, _) in after.items()}
        changed = {i for i in before.keys() | after.keys() if before.get(i) != after.get(i)}

        async def wait() -> None:
            while self.copy != expected or not changed <= self.told:
                self.take(await asyncio.wait_for(self.changes.__anext__(), FEED_S))
            await self.feed.idle()

        with contextlib.suppress(asyncio.TimeoutError):
            self.loop.run_until_complete(wait())
        assert self.copy == expected
        assert changed <= self.told
        assert {i: state for i, state in self.states.items() if state is not None} == {
            i: row["state"] for i, row in expected.items()
        }
        self.told.clear()
        self.last_heard = self.truth

    # ------------------------------------------------------------------ acting

    def look(self) -> None:
        self.truth = Truth(self.database.server.data)

    def pick(self, number: int) -> int | None:
        ids = sorted(self.truth.rows)
        return ids[number % len(ids)] if ids else None

    def concrete(self, command: Sequence[Any]) -> list[Any] | None:
        """A command with the ids of runs that there are; None if there is no run."""
        name, first, *more = command
        if name in ("create", "bd_create"):
            return [name, first, *more]
        run_id = self.pick(first)
        if run_id is None:
            return None
        if name == "remove":
            ids = sorted(self.truth.rows)
            begin = ids.index(run_id)
            return [name, *ids[begin : begin + more[0]]]
        return [name, run_id, *more[0]]

    def by_second(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if concrete := self.concrete(command):
                self.second.tell("do", self.truth.tid.hex(), *concrete)
                self.look()

    @rule(command=COMMAND)
    def first_client_acts(self, command: Sequence[Any]) -> None:
        if concrete := self.concrete(command):
            caught_up(self.storage, self.truth.tid)
            name, *arguments = concrete
            transact("client A", lambda: MOTOKO[name](self.workflow, *arguments))
            self.workflow.run_name = None
            self.look()

    @rule(commands=COMMANDS)
    def second_client_acts(self, commands: Sequence[Any]) -> None:
        self.by_second(commands)

    @rule(commands=COMMANDS, cut=st.booleans())
    def first_client_falls_behind(self, commands: Sequence[Any], cut: bool) -> None:
        with falling_behind(self.storage, cut=cut):
            self.by_second(commands)

    @rule(commands=COMMANDS, field=FIELD)
    def the_queue_overflows(self, commands: Sequence[Any], field: tuple[str, Any]) -> None:
        with falling_behind(self.storage, cut=True):
            tid = self.truth.tid
            self.by_second(commands)
            for state in STATES * 2:
                self.by_second([("bd_put", 0, ("state", state)), ("put", 1, field)])
        if self.truth.tid > tid and self.truth.rows:
            # It stays empty if nobody looked since the last time.
            assert self.storage._server.client.verify_result in ("cache too old, clearing", "empty cache")

    @rule(commands=COMMANDS, kill=st.booleans(), noticed=st.booleans())
    def the_server_is_replaced(self, commands: Sequence[Any], kill: bool, noticed: bool) -> None:
        """Right after changes, which are announced and perhaps cannot be read before it is back."""
        protocol = self.storage._server.client.protocol
        self.by_second(commands)
        caught_up(self.storage, self.truth.tid)
        with contextlib.ExitStack() as meanwhile:
            meanwhile.enter_context(self.second.paused())
            if not noticed:
                meanwhile.enter_context(falling_behind(self.storage, cut=True))
            self.server.stop(kill=kill)
            if noticed:
                assert wait_until(lambda: not self.storage.is_connected(), TIMEOUT_S)
                self.refresh_in_vain()
            self.server.start()
        reconnected(self.storage, protocol)

    def refresh_in_vain(self) -> None:
        patience = self.storage._server.timeout
        self.storage._server.timeout = 0.0
        with contextlib.suppress(ClientDisconnected):
            self.index.refresh()
        self.storage._server.timeout = patience

    @rule(checks=st.integers(1, 3))
    def nobody_looks_for_a_while(self, checks: int) -> None:
        self.nobody_looks = checks

    # ------------------------------------------------------------------ a session that stays open

    @precondition(lambda self: self.leave is None)
    @rule()
    def a_session_begins(self) -> None:
        caught_up(self.storage, self.truth.tid)
        self.context = contextvars.copy_context()
        stack = contextlib.ExitStack()
        self.session = self.context.run(stack.enter_context, use(Session("a long one")))
        self.leave = lambda: self.context.run(stack.close)
        self.within(lambda: self.workflow.mult.base)  # this is when it opens the study
        self.seen = copy.deepcopy(self.truth.rows)

    def within(self, f: Callable[[], T]) -> T:
        return self.context.run(f)

    @precondition(lambda self: self.leave is not None)
    @rule(number=PICK, field=FIELD)
    def the_session_changes_a_run(self, number: int, field: tuple[str, Any]) -> None:
        if self.seen:
            run_id = sorted(self.seen)[number % len(self.seen)]
            self.within(lambda: put(self.workflow, run_id, *field))
            self.seen[run_id][0][field[0]] = field[1]

    @precondition(lambda self: self.leave is not None)
    @rule(run_name=st.sampled_from(NAMES), xs=POINTS)
    def the_session_creates_runs(self, run_name: str, xs: list[float]) -> None:
        self.workflow.run_name = run_name
        try:
            pairs = self.within(lambda: list(self.workflow.mult.createTask(x=xs)))
        except ConflictError:  # others have created tasks since it began; it cannot commit any more
            self.the_session_ends(commit=False)
            return
        finally:
            self.workflow.run_name = None
        for run, job in pairs:
            # It may have been there.
            self.seen.setdefault(run.id, (values(run), values(job)))

    @precondition(lambda self: self.leave is not None)
    @rule()
    def the_session_makes_a_savepoint(self) -> None:
        self.session.manager.get().savepoint()

    @precondition(lambda self: self.leave is not None)
    @rule(commit=st.booleans())
    def the_session_ends(self, commit: bool) -> None:
        assert self.leave is not None
        if commit:
            with contextlib.suppress(ConflictError):
                self.within(self.session.commit)
        self.leave()
        self.leave = None
        self.look()

    # ------------------------------------------------------------------ agreeing

    @invariant()
    def they_agree(self) -> None:
        if self.leave is not None:
            self.within(lambda: check_selections(self.workflow, self.seen))
        if self.nobody_looks:
            self.nobody_looks -= 1
            return
        self.hear()
        self.index.refresh()
        rows = {run_id: scalars(run) for run_id, (run, _) in self.truth.rows.items()}
        assert {run_id: dict(row) for run_id, row in self.index.rows.items()} == rows
        check_groups(self.index, rows)
        with use(Session("a short one")):
            check_selections(self.workflow, self.truth.rows)

    def teardown(self) -> None:
        if self.leave is not None:
            self.leave()
        self.undo.close()


put = MOTOKO["put"]


@pytest.fixture
def second_client() -> Iterator[SecondClient]:
    client = SecondClient()
    yield client
    client.end()


@pytest.mark.timeout(3600 if SEARCHING else 300)
def test_index_feed_and_database_agree(second_client: SecondClient) -> None:
    run_state_machine_as_test(
        lambda: Agreement(second_client),
        settings=settings(
            max_examples=60 if SEARCHING else 12,
            stateful_step_count=25 if SEARCHING else 18,
            # Shrinking takes minutes, as real servers are started.
            phases=[Phase.generate],
            report_multiple_bugs=False,
        ),
    )


def test_ids_that_a_restarted_server_gives_again_are_not_taken_for_what_they_were(
    second_client: SecondClient,
) -> None:
    """A savepoint gives them to a session's new objects; then others commit parts of the trees under them."""
    machine = Agreement(second_client)
    machine.begin()
    try:
        machine.by_second([("create", "one", [1.0])])
        machine.a_session_begins()
        machine.the_session_creates_runs("two", [float(x) for x in range(200, 230)])
        machine.the_session_makes_a_savepoint()
        machine.the_server_is_replaced([], kill=True, noticed=False)
        for begin in range(2, 62, 15):
            machine.by_second([("create", "one", [float(x) for x in range(begin, begin + 15)])])
            machine.they_agree()
    finally:
        machine.teardown()
