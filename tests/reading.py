"""Reading a study the fast way and through ZODB, for comparing the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motoko_core.config import load_study_config
from motoko_core.study.plain_snapshot import plain_snapshot
from motoko_core.study.record import Snapshot
from motoko_core.study.snapshot import FileSnapshot, snapshot


def everything(content: Snapshot) -> list[Any]:
    """All that a snapshot gives."""
    found = []
    for run in content.runs():
        job = content.job(run.entries.get("job_id"))
        parameters = None if job is None else (job.entries, job.attributes)
        found.append((run.id, run.entries, run.attributes, run.quantities, parameters))
    return found


def read_both_ways(study: str | Path) -> list[Any]:
    """All that a study holds, read the fast way, without a detour, and found to be what ZODB reads."""
    config = load_study_config(study)
    with snapshot("it", config, None) as fast:
        assert isinstance(fast, FileSnapshot)
        found = everything(fast)
        assert "_plain" not in vars(fast), "a part was read with ZODB"
    with plain_snapshot("it", config, None) as plain:
        assert everything(plain) == found
    return found
