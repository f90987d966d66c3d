"""Where a study is in its database, for those who look without importing BlackDynamite."""

from __future__ import annotations

from collections.abc import Iterable


def find_schema(schemas: Iterable[str], study: str) -> str | None:
    """The key of an existing study's tree, whoever created it."""
    wanted = study.lower()
    for key in schemas:
        if key == wanted or ("_" not in wanted and key.endswith(f"_{wanted}")):
            return str(key)
    return None
