"""Not measured: start the servers of a study, each version its own, with its own settings."""

from __future__ import annotations

from . import study
from .process import arguments


def main() -> None:
    arguments()
    workflow = study.open_workflow()
    workflow.many.connect()
    workflow.vars.served = True


main()
