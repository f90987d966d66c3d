"""createTask: a list into an empty study, or one by one into a study that has runs."""

from __future__ import annotations

import time

import transaction

from . import study
from .process import arguments, seconds, tell


def main() -> None:
    args = arguments("--list")
    workflow = study.open_workflow()

    def create(*points: float) -> None:
        values = list(points) if len(points) > 1 else points[0]
        workflow.many.createTask(run_params=study.RUN_PARAMS, x=values)

    if args.list:
        points = [float(x) for x in range(int(args.list))]

        def create_list() -> None:
            create(*points)
            transaction.commit()

        tell("create_list", seconds(create_list) / len(points) * 1e3, len(points))
        return

    create(-1.0)  # connected, and what a creation needs of the study is in the cache
    transaction.commit()
    wanted = max(50, min(1000, args.runs // 10))
    end = time.perf_counter() + 5 * args.seconds
    created = 0

    def create_each() -> None:
        nonlocal created
        while created < wanted and (created < 10 or time.perf_counter() < end):
            created += 1
            create(-1.0 - created)
        transaction.commit()

    taken = seconds(create_each)
    tell("create_each", taken / created * 1e3, created)


main()
