"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil


def describe_machine() -> dict[str, Any]:
    """Processor, memory, system, and what an fsync costs, which every commit waits for."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "fsync_ms": round(_fsync_ms(), 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _fsync_ms() -> float:
    found = []
    with tempfile.TemporaryFile() as file:  # where the studies are made, too
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - begin)
    return median(found) * 1e3
