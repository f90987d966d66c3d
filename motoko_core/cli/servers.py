"""``motoko servers``: how the database servers are."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from motoko_core.cli.context import open_workflow
from motoko_core.cli.output import say, size_text, table
from motoko_core.interfaces import CliCommand

if TYPE_CHECKING:
    from motoko_core.study.health import Health

_HEADERS = ("server", "state", "process", "clients", "size", "last commit", "address", "beside the database")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    workflow = open_workflow(args)

    from motoko_core.study.health import TROUBLES, look_at_all

    servers = [manager.database.server for manager in workflow.task_managers.values()]
    found = look_at_all([*servers, workflow.vars.database.server])
    if args.json:
        say(_json(dict(zip([*workflow.task_managers, None], found, strict=True))))
    else:
        table(_HEADERS, [_row(health) for health in found])
    return 1 if any(health.state in TROUBLES for health in found) else 0


def _row(health: Health) -> tuple[object, ...]:
    last = health.last_commit.astimezone().strftime("%Y-%m-%d %H:%M:%S") if health.last_commit else None
    size = None if health.size is None else size_text(health.size)
    beside = ", ".join(f"{name} ({size_text(size)})" for name, size in health.beside.items())
    return (
        *(health.title, health.state, health.pid, health.clients, size, last, health.address),
        beside,
    )


def _json(found: dict[str | None, Health]) -> str:
    import attrs

    def plain(value: Any) -> Any:
        return value.isoformat()

    content = [{"study": study, **attrs.asdict(health)} for study, health in found.items()]
    return json.dumps(content, indent=2, default=plain)


COMMAND = CliCommand(
    name="servers", help="show the database servers: state, process, size", configure=configure, run=run
)
