"""Asking a scheduler, where its programs cannot always be started."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from motoko_plugins.generators._scheduler_queries import Queries
from motoko_plugins.generators._slurm import Slurm
from motoko_plugins.generators._slurm_options import SlurmOptions

#: Answers for each job that it is asked for, and notes how many those are.
SACCT = """\
#!/bin/bash
for word; do [[ $word == --jobs=* ]] && ids=${word#--jobs=}; done
IFS=, read -ra ids <<< "$ids"
echo ${#ids[@]} >> "$(dirname "$0")/asked"
for id in "${ids[@]}"; do echo "$id|FAILED|3:0"; done
"""


def queries(path: str) -> Queries:
    """Finds programs on a path."""
    options = SlurmOptions()
    return Queries(Slurm(options), options, {**os.environ, "PATH": path})


@pytest.fixture
def sacct(tmp_path: Path) -> Path:
    program = tmp_path / "sacct"
    program.write_text(SACCT)
    program.chmod(0o755)
    return tmp_path


async def test_the_accounting_is_asked_again_after_a_fork_that_failed(
    sacct: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = queries(f"{sacct}:{os.environ['PATH']}")

    async def refuse(*args: Any, **kwargs: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", refuse)
        assert await asking.history(["12"]) == []
    assert [(entry.record_job, entry.exit_code) for entry in await asking.history(["12"])] == [("12_0", 3)]


async def test_an_accounting_that_is_not_there_is_asked_once(tmp_path: Path) -> None:
    asking = queries(str(tmp_path))
    assert await asking.history(["12"]) == []
    assert not asking.has_history


async def test_a_command_has_room_for_so_many_jobs(sacct: Path) -> None:
    asking = queries(f"{sacct}:{os.environ['PATH']}")
    found = await asking.history([f"12345678_{number}" for number in range(12_000)])
    assert len(found) == 12_000
    assert {int(line) for line in (sacct / "asked").read_text().split()} == {1000}
