"""``motoko plugins``: what is installed, who provides what, and what was left out."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from motoko_core.cli.context import WorkflowNotFound, find_workflow_file
from motoko_core.cli.output import say, table
from motoko_core.errors import MotokoError, PluginError
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from motoko_core.plugins import PluginInfo, PluginRegistry

log = logging.getLogger("motoko.plugins")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    from motoko_core.plugin_claims import contested, settle
    from motoko_core.plugins import find_plugins

    prefer, block = _wishes(args.motoko_directory)
    before = log.level
    log.setLevel(logging.ERROR)  # the table tells what was left out
    try:
        infos, loaded = find_plugins(block=block)
    finally:
        log.setLevel(before)
    error = None
    try:
        settle(infos, loaded, prefer)
    except PluginError as contradiction:
        error = contradiction  # the table helps to resolve it
    _show(infos, contested(loaded, prefer), as_json=args.json)
    if error is not None:
        raise error
    return 0


def _show(infos: Sequence[PluginInfo], claims: Mapping[str, Sequence[PluginInfo]], *, as_json: bool) -> None:
    contested = [[key for key, claimants in claims.items() if info in claimants] for info in infos]
    if as_json:
        import attrs

        found = [
            {**attrs.asdict(info), "contested": keys} for info, keys in zip(infos, contested, strict=True)
        ]
        say(json.dumps(found, indent=2))
        return
    rows = []
    for info, keys in zip(infos, contested, strict=True):
        provides = [f"{kind}: {', '.join(names)}" for kind, names in sorted(info.provides.items())]
        remarks = [f"overrides {name}" for name in info.overrides]
        remarks += [f"{key} is claimed by another plugin too" for key in keys]
        if info.left_out:
            remarks.append(f"left out: {info.left_out}")
        rows.append((info.name, info.distribution, info.version, "; ".join(provides), "; ".join(remarks)))
    table(("plugin", "distribution", "version", "provides", "remarks"), rows)


def registry(directory: Path | None) -> PluginRegistry:
    """All plugins, as the motoko.yaml at hand shapes them, if there is one."""
    from motoko_core.plugins import load_plugins

    prefer, block = _wishes(directory)
    return load_plugins(prefer=prefer, block=block)


def _wishes(directory: Path | None) -> tuple[Mapping[str, str], Sequence[str]]:
    """What the motoko.yaml at hand prefers and blocks."""
    from motoko_core.config import load_workflow_config

    try:
        path = find_workflow_file(directory)
    except WorkflowNotFound:
        if directory is not None:
            raise
        return {}, ()
    config = load_workflow_config(path)
    return config.prefer, config.block


def commands(directory: Path | None) -> Sequence[CliCommand]:
    """The commands that plugins of others add to ``motoko``; what is broken is logged, and left out."""
    from importlib.metadata import entry_points

    others = [entry for entry in entry_points(group="motoko.plugins") if not _is_own(entry)]
    if not others:
        return ()
    try:
        return registry(directory).cli_commands()
    except MotokoError as error:
        log.warning("the commands of plugins are missing: %s", error)
        return ()


def _is_own(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "motoko"


COMMAND = CliCommand(
    name="plugins", help="show the plugins, and what they provide", configure=configure, run=run
)
