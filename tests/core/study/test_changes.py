"""What a consumer of the feed is given: merged per run, bounded, and never less than what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import pytest

from motoko_core.interfaces import RunChange
from motoko_core.study.changes import Batch, Changes


def change(run_id: int, before: str | None, after: str | None) -> RunChange:
    return RunChange(run_id=run_id, before=before, after=after)


def moves(*states: str | None, run_id: int = 1) -> Iterable[RunChange]:
    return [change(run_id, before, after) for before, after in pairwise(states)]


async def test_changes_of_a_run_are_merged_until_they_are_taken() -> None:
    changes = Changes()
    changes.put(moves(None, "CREATED", "START"))
    changes.put([change(2, "START", "FINISHED")])
    changes.put(moves("START", "FINISHED"))
    assert changes.take() == Batch(changes=(change(1, None, "FINISHED"), change(2, "START", "FINISHED")))
    assert not changes
    assert changes.take() == Batch()
    changes.put(moves("FINISHED", "FORWARDED"))
    assert changes.take().changes == (change(1, "FINISHED", "FORWARDED"),)


async def test_more_changes_than_are_kept_become_a_rescan() -> None:
    changes = Changes(limit=3)
    for run_id in range(4):
        changes.put([change(run_id, None, "CREATED")])
    changes.put([change(9, None, "CREATED")])
    assert changes.take() == Batch(changes=(change(9, None, "CREATED"),), rescan=True)
    changes.put(moves("CREATED", "START"))
    assert not changes.take().rescan


async def test_iterating_waits_for_something_to_take() -> None:
    woken: list[bool] = []
    changes = Changes(lambda: woken.append(bool(changes)))
    waiter = asyncio.ensure_future(anext(changes))
    changes.put()
    await asyncio.sleep(0)
    assert not waiter.done()
    changes.put(rescan=True)
    assert await waiter == Batch(rescan=True)
    assert woken == [False, True]


async def test_a_study_that_cannot_be_followed_is_an_error_for_its_consumers() -> None:
    changes = Changes()
    waiter = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    changes.fail(KeyError("torn"))
    with pytest.raises(KeyError, match="torn"):
        await waiter
    with pytest.raises(KeyError, match="torn"):
        changes.take()
