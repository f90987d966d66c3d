"""Asking a server for a sign of life."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from motoko_core.study.database import Database
from motoko_core.study.server import Server
from motoko_core.study.starting import start_servers
from tests.conftest import TIMEOUT_S
from tests.processes import runzeo


async def test_question_that_nobody_waits_for_any_more_ends_without_a_traceback(server: Server) -> None:
    start_servers([server])
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    database = Database(server)
    database.db  # noqa: B018  connect
    process = runzeo(database)
    process.suspend()
    try:
        waiting = asyncio.ensure_future(database.pulse.answered())
        await asyncio.sleep(0)
        asking = database.pulse._asking
        assert asking is not None
        waiting.cancel()
        database.hang_up()
        await asyncio.wait({asking}, timeout=TIMEOUT_S)
        assert asking.done()
    finally:
        process.resume()
        database.close()
    del asking, database, waiting
    await asyncio.sleep(0)
    gc.collect()
    assert not complaints
