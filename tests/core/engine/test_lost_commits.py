"""A server that dies in the last step of a firing's commit, and stays away: the firing happens once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from motoko_core.engine import loop
from motoko_core.session import transact
from motoko_core.study import pulse
from motoko_core.study.starting import start_servers
from motoko_core.workflow import Workflow
from tests.conftest import TIMEOUT_S, orchestrate
from tests.processes import kill_server
from tests.proxy import BEFORE_THE_ANSWER, BEFORE_THE_SERVER, Proxy


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  nobody is there who could set an event
        await asyncio.sleep(0.01)


# Of the databases of a transaction, `add` is finished before `mult`, and the variables after it.
@pytest.mark.parametrize(
    ("place", "others", "attempts"),
    [
        (BEFORE_THE_ANSWER, (), 1),
        (BEFORE_THE_SERVER, (), 2),
        (BEFORE_THE_ANSWER, ("variables",), 1),
        (BEFORE_THE_SERVER, ("variables",), 2),
        (BEFORE_THE_SERVER, ("add", "variables"), 1),
    ],
)
async def test_firing_whose_server_died_in_its_commit_happens_once(
    workflow: Workflow,
    through_proxy: Callable[[str], Proxy],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    others: tuple[str, ...],
    attempts: int,
) -> None:
    caplog.set_level(logging.INFO, "motoko")
    monkeypatch.setattr(pulse, "_SLOW_S", 0.2)
    monkeypatch.setattr(loop, "_GRACE_S", 0.2)  # the workflow must not end with a commit up in the air
    server, proxy = workflow.mult.database.server, through_proxy(place)
    proxy.on_cut = lambda: kill_server(server)
    variable = f"fired_{str(workflow.run_name).replace('-', '_')}"
    calls: list[float] = []
    beats = 0

    def fired(workflow: Workflow) -> None:
        calls.append(len(calls) + 1.0)
        workflow.mult.createTask(x=calls[-1])
        if "add" in others:
            workflow.add.createTask(x=calls[-1])
        if "variables" in others:
            setattr(workflow.vars, variable, calls[-1])
        workflow.finished = True
        workflow.mult.database.db.storage._server.timeout = 0.1  # the server stays away for longer
        proxy.is_armed = calls == [1.0]

    async def main(workflow: Workflow) -> None:
        nonlocal beats
        workflow.add_action("it", task="mult", event=lambda: True, f=fired)
        await until(lambda: proxy.has_cut.is_set() and "does not answer" in caplog.text)
        for beats in range(100):  # noqa: B007  the loop is not held up
            await asyncio.sleep(0.01)
        await asyncio.to_thread(start_servers, [server])

    await orchestrate(workflow, main)
    workflow.mult.database.db.storage._server.timeout = TIMEOUT_S
    assert beats == 99
    assert len(calls) == attempts

    def look() -> list[float]:
        found = [job.x for _, job in workflow.mult.select()]
        if "add" in others:
            found += [job.x for _, job in workflow.add.select()]
        if "variables" in others:
            found.append(getattr(workflow.vars, variable))
        return found

    assert transact("look", look) == [float(attempts)] * (1 + len(others))
