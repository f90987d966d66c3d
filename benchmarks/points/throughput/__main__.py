"""Start an engine, let it execute a few tasks, then measure it: what is reported is its steady state."""

from __future__ import annotations

import importlib
import itertools
import os
import time
from pathlib import Path

from ..process import arguments, tell
from .tasks import WORKERS

#: Connections are made and modules imported when the first tasks come.
_WARM_UP = 20


#: What a new file takes on a disk that is at rest, and how long is waited for that.
_RESTING_S = 0.0002
_REST_LIMIT_S = 20.0


def let_the_disk_rest() -> None:
    """Wait until files are created as fast as ever.

    What was measured before may have deleted many files, and where the disk is told of free blocks at once
    (``discard``), file systems take ten times as long for new ones for up to half a minute.
    """
    os.sync()
    end = time.monotonic() + _REST_LIMIT_S
    for number in itertools.count():
        directory = Path(f"rest-{number}")  # it stays: deleting is what disturbs
        directory.mkdir()
        begin = time.perf_counter()
        for name in range(50):
            (directory / str(name)).touch()
        if (time.perf_counter() - begin) / 50 < _RESTING_S or time.monotonic() > end:
            return
        time.sleep(1)


def main() -> None:
    args = arguments("--tasks", "--chain", words=("--engine",))
    tasks, chain = int(args.tasks), int(args.chain)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])  # what is started here inherits it
    module, _, variant = args.engine.partition(":")
    let_the_disk_rest()
    begin = time.perf_counter()
    with importlib.import_module(f"points.throughput.{module}").engine(variant) as engine:
        tell("start", time.perf_counter() - begin)
        if tasks > _WARM_UP:
            engine.independent(_WARM_UP)
        creating_s, executing_s = engine.independent(tasks)
        tell("throughput", tasks / executing_s, tasks)
        tell("throughput_created", tasks / (creating_s + executing_s), tasks)
        if chain:
            tell("step", engine.chain(chain) * 1e3, chain)


if __name__ == "__main__":
    main()
