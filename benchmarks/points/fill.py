"""Not measured: make the study with its runs. Motoko does it for both; the format on disk is the same."""

from __future__ import annotations

from pathlib import Path

import transaction

from . import study
from .process import arguments

_AT_ONCE = 5_000


def main() -> None:
    args = arguments()
    study.write(Path(), (study.NAME,), "", study.ORCHESTRATOR)
    workflow = study.open_workflow()
    workflow.create(validated=True)
    states = study.states(args.runs)
    for begin in range(0, args.runs, _AT_ONCE):
        points = [float(x) for x in range(begin, min(begin + _AT_ONCE, args.runs))]
        for run, _ in workflow.many.createTask(run_params=study.RUN_PARAMS, x=points):
            run.state = states[run.id - 1]
        transaction.commit()


main()
