"""Selections by state: cold in a new process, then warm; and the memory that the first one takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from . import study
from .process import arguments, resident_bytes, seconds, tell, tell_warm


def main() -> None:
    args = arguments()
    from motoko.workflow import Workflow  # noqa: F401  importing is not part of the cold start

    expected = Counter(study.states(args.runs))
    few, half = "state = START", "state = FORWARDED"
    workflow: Any = None

    def first() -> None:
        nonlocal workflow
        workflow = study.open_workflow()
        require(len(workflow.many.select(few)), expected["START"])

    tell("cold_selection", seconds(first))
    tell("selection_rss", resident_bytes())

    def select(constraint: str) -> Any:
        return workflow.many.select(constraint)()

    require(len(select(half)), expected["FORWARDED"])
    tell_warm("select_few", lambda: select(few), args.seconds)
    tell_warm("select_half", lambda: select(half), args.seconds)
    tell_warm("count_half", lambda: len(workflow.many.select(half)), args.seconds)
    tell_warm("read_half", lambda: [job.x for _, job in workflow.many.select(half)], args.seconds)


def require(found: int, expected: int) -> None:
    if found != expected:
        raise SystemExit(f"{found} runs were selected instead of {expected}: what is measured here is wrong")


main()
