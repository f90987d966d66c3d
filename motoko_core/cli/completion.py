"""What argcomplete offers behind an option; imported by every command, so light at import."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motoko_core.cli.parser import ArgumentParser


def studies(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Task managers and their aliases, for ``--bd-study``."""
    from motoko_core.cli.context import find_workflow_file
    from motoko_core.config import load_workflow_config
    from motoko_core.errors import MotokoError

    try:
        directory = getattr(parsed_args, "motoko_directory", None)
        config = load_workflow_config(find_workflow_file(Path(directory) if directory else None))
    except MotokoError:
        return ["all"]
    return ["all", *config.task_managers, *config.aliases]


def task_managers(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Task managers and their aliases, which references such as ``add.3`` begin with."""
    return [name for name in studies(parsed_args) if name != "all"]


def generators(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Job generators that some plugin provides, for ``--generator``."""
    from motoko_core.cli.plugins import registry

    provided = [info.provides.get("generators", []) for info in registry(None).plugins]
    return sorted({name for names in provided for name in names})


def words() -> list[str] | None:
    """The words before the one that the shell wants completed; None if it is not the shell that asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return None
    from argcomplete.lexers import split_line

    line, point = os.environ.get("COMP_LINE", ""), int(os.environ.get("COMP_POINT", "0"))
    *_, before, _last = split_line(line, point)
    return list(before[int(os.environ["_ARGCOMPLETE"]) :])


def complete(parser: ArgumentParser, given: list[str]) -> None:
    """Answer the shell, and exit."""
    import argcomplete

    # argcomplete watches the arguments that a parser has at the start.
    parser.fill_ahead(given)
    argcomplete.autocomplete(parser)
