"""What commands share: finding the workflow, and opening it."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.errors import ConfigError, MotokoError

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

FILE_NAME = "motoko.yaml"
_HINT = (
    "Go to the directory of a workflow, or name it: motoko -C DIR ... (`motoko init DIR` writes a new one.)"
)


class WorkflowNotFound(ConfigError):
    """There is no motoko.yaml where one was looked for."""


def find_workflow_file(directory: Path | None) -> Path:
    """The workflow's motoko.yaml: in ``directory``, or (None) in the current directory or above it.

    :raises WorkflowNotFound: there is none.
    """
    if directory is not None:
        path = directory / FILE_NAME
        if path.is_file():
            return path
        raise WorkflowNotFound(f"there is no {FILE_NAME} in {directory}", hint=_HINT)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise WorkflowNotFound(f"there is no {FILE_NAME} in {here}, nor in a directory above it", hint=_HINT)


def open_workflow(args: argparse.Namespace) -> Workflow:
    """The workflow that the command line means.

    :raises ~motoko_core.errors.ConfigError: there is none, or its files are wrong.
    """
    return open_file(find_workflow_file(args.motoko_directory))


def open_file(path: Path) -> Workflow:
    """The workflow of a motoko.yaml."""
    from BlackDynamite import bdlogging

    from motoko_core.workflow import Workflow

    for handler in logging.getLogger(bdlogging.global_name).handlers:
        handler.setLevel(max(handler.level, logging.WARNING))
    return Workflow(path)


def chosen_managers(workflow: Workflow, args: argparse.Namespace) -> list[TaskManager]:
    """The task managers that ``--bd-study`` names."""
    if args.bd_study == "all":
        return list(workflow.task_managers.values())
    return [workflow.task_manager(args.bd_study, where="--bd-study")]


def require_created(managers: Sequence[TaskManager]) -> None:
    """:raises ~motoko_core.errors.MotokoError: a study has no database yet."""
    refuse_missing([manager.study for manager in managers if not manager.database.exists])


def refuse_missing(studies: Sequence[str]) -> None:
    """:raises ~motoko_core.errors.MotokoError: there are such studies."""
    if studies:
        raise MotokoError(
            f"the studies {', '.join(studies)} were not created yet",
            hint="`motoko create` makes all studies; `motoko run` makes those that are missing, and runs.",
        )


@contextmanager
def working_directory(path: str | Path) -> Iterator[None]:
    """Work in the workflow's directory: orchestrators of Motoko 0.1 may name files relative to it."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
