"""The arguments that a workflow's own orchestrator adds to ``orchestrator start`` and ``run``."""

from __future__ import annotations

import argparse
import inspect
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from motoko_core.cli.context import open_file
from motoko_core.errors import ActionError, MotokoError

#: What motoko's own parsers put into the namespace; the other names of theirs begin with ``motoko_``.
_OWN = frozenset({"command", "what", "verbose"})


def add_run_name(parser: argparse.ArgumentParser) -> None:
    """Add ``--run-name`` and ``--wait-forever``."""
    parser.add_argument(
        "-n",
        "--run-name",
        dest="motoko_run_name",
        metavar="NAME",
        type=_run_name,
        required=True,
        help="the name of the workflow run: its tasks are created, found and continued under it",
    )
    parser.add_argument(
        "--wait-forever",
        dest="motoko_wait_forever",
        action="store_true",
        help="do not give up when nothing can happen any more: tasks come from outside",
    )


def _run_name(text: str) -> str:
    if not text.strip():  # such as "$NAME" of a script that never set it
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def add_workflow_arguments(parser: argparse.ArgumentParser, path: Path) -> None:
    """Open the workflow, import its orchestrator, and let its ``populate_arg_parser`` add arguments.

    The workflow is in the namespace afterwards, as ``motoko_workflow``.

    :raises ~motoko_core.errors.ConfigError: the workflow's files are wrong.
    :raises ~motoko_core.errors.ActionError: the orchestrator cannot be imported, or ``populate_arg_parser``
        raises.
    """
    from motoko_core.orchestrator import orchestrator_function

    workflow = open_file(path)
    module = workflow.load_orchestrator_module()
    # Told here, so that the engine does not import the module a second time.
    workflow.orchestrator_function = orchestrator_function(workflow.configuration, module)
    # An argument of theirs that has the name of one of ours replaces it; ours keeps its default then.
    ours = [action for action in parser._actions if action.dest.startswith("motoko_")]
    parser.set_defaults(**{action.dest: action.default for action in ours})
    actions, defaults = list(parser._actions), set(parser._defaults)
    populate = getattr(module, "populate_arg_parser", None)
    if populate is not None:
        _call(populate, parser, module)
    theirs = {action.dest for action in parser._actions if action not in actions}
    theirs |= parser._defaults.keys() - defaults
    parser.set_defaults(motoko_workflow=workflow, motoko_theirs=theirs)


def _call(populate: Any, parser: argparse.ArgumentParser, module: ModuleType) -> None:
    try:
        populate(parser)
    except MotokoError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f"{f.filename}:{f.lineno}" for f in frames if f.filename == module.__file__]
        raise ActionError(
            f"populate_arg_parser raised {type(error).__name__}: {error}",
            where=lines[-1] if lines else str(module.__file__),
        ) from error


def workflow_params(args: argparse.Namespace) -> dict[str, Any]:
    """The runtime parameters for ``main`` and the callbacks: the workflow's own arguments, and run_name.

    An argument that was not given and has no default is left out, as in Motoko 0.1, so that a default in
    the signature of ``main`` counts; unless ``main`` insists on it.
    """
    function = args.motoko_workflow.get_orchestrator_function()
    required = {p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty}
    params = {}
    for name, value in vars(args).items():
        own = (name in _OWN and name not in args.motoko_theirs) or name.startswith("motoko_")
        if not own and (value is not None or name in required):
            params[name] = value
    return {**params, "run_name": args.motoko_run_name}
