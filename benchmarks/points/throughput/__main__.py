"""Start an engine, let it execute a few tasks, then measure it: what is reported is its steady state."""

from __future__ import annotations

import importlib
import os
import time

from ..process import arguments, tell
from .tasks import WORKERS

#: Connections are made and modules imported when the first tasks come.
_WARM_UP = 20


def main() -> None:
    args = arguments("--tasks", "--chain", words=("--engine",))
    tasks, chain = int(args.tasks), int(args.chain)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])  # what is started here inherits it
    module, _, variant = args.engine.partition(":")
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
