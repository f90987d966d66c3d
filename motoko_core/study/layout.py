"""Where a study is in its database, for those who look without importing BlackDynamite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from motoko_core.study.plain_objects import ROOT, Records, Reference, Unexpected

#: The layout of what Motoko itself keeps in a study's tree. A study made by a later one is refused; one
#: that does not say, made by Motoko 0.1 or BlackDynamite, is as good as the first.
MOTOKO_SCHEMA = 1


def find_schema(schemas: Iterable[str], study: str) -> str | None:
    """The key of an existing study's tree, whoever created it."""
    wanted = study.lower()
    for key in schemas:
        if key == wanted or ("_" not in wanted and key.endswith(f"_{wanted}")):
            return str(key)
    return None


def trees_of(file: Records, study: str) -> tuple[Reference, Reference]:
    """Where a study's runs and jobs are in its file.

    :raises Unexpected: there is no such study in it, or nothing is where it should be.
    """

    def entries(tree: Any) -> Reference:
        if type(tree) is not Reference:
            raise Unexpected(f"{tree!r} instead of a tree")
        found = file.state(tree)[0].get("entries")
        if type(found) is not Reference:
            raise Unexpected(f"{found!r} instead of the entries of a tree")
        return found

    try:
        schemas = dict(file.items(entries(file.state(ROOT)[0]["data"]["schemas"])))
        schema = find_schema(schemas, study)
        if schema is None:
            raise Unexpected(f"no study {study!r} in it")
        tree = dict(file.items(entries(schemas[schema])))
        if tree.get("motoko_schema", MOTOKO_SCHEMA) > MOTOKO_SCHEMA:
            raise Unexpected("made by a later version")
        return entries(tree["runs"]), entries(tree["jobs"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Unexpected(f"its trees: {error!r}") from error
