"""Who provides a name that several plugins claim, and whether motoko.yaml names plugins that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from motoko_core.errors import PluginError, nearest
from motoko_core.plugin_discovery import KINDS, Loaded, PluginInfo, same


def settle(
    plugins: Sequence[PluginInfo], loaded: Sequence[Loaded], prefer: Mapping[str, str]
) -> dict[str, dict[str, Loaded]]:
    """Decide who provides which name: kind -> name -> the plugin."""
    for key, distribution in prefer.items():
        _check_preference(key, distribution, plugins, loaded)
    winners: dict[str, dict[str, Loaded]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for name in sorted({name for item in loaded for name in item.offers[kind]}):
            claims = [item for item in loaded if name in item.offers[kind]]
            winner = _winner(f"{kind}.{name}", claims, prefer.get(f"{kind}.{name}"))
            winners[kind][name] = winner
            if len(claims) > 1:
                winner.info.overrides.append(f"{kind}.{name}")
    return winners


def contested(loaded: Sequence[Loaded], prefer: Mapping[str, str]) -> dict[str, list[PluginInfo]]:
    """What :func:`settle` cannot decide: ``kind.name`` -> the plugins that claim it."""
    found = {}
    for kind in KINDS:
        for name in sorted({name for item in loaded for name in item.offers[kind]}):
            key = f"{kind}.{name}"
            best = _best([item for item in loaded if name in item.offers[kind]], prefer.get(key))
            if len(best) > 1:
                found[key] = [item.info for item in best]
    return found


def _best(claims: Sequence[Loaded], preferred: str | None) -> list[Loaded]:
    best = [item for item in claims if preferred and same(item.info.distribution, preferred)]
    return best or [item for item in claims if not item.info.builtin] or list(claims)


def _winner(key: str, claims: Sequence[Loaded], preferred: str | None) -> Loaded:
    best = _best(claims, preferred)
    if len(best) == 1:
        return best[0]
    distributions = sorted({item.info.distribution for item in best})
    if len(distributions) > 1:
        others = " or ".join(distributions[1:])
        hint = f"In motoko.yaml: plugins: {{prefer: {{{key}: {distributions[0]}}}}}  (or {others})"
    else:
        hint = f"In motoko.yaml: plugins: {{block: [{best[0].info.name}]}}  (or another of them)"
    raise PluginError(f"{key} is claimed by " + " and by ".join(str(item.info) for item in best), hint=hint)


def _check_preference(
    key: str, distribution: str, plugins: Sequence[PluginInfo], loaded: Sequence[Loaded]
) -> None:
    where = "plugins.prefer in motoko.yaml"
    kind, _, name = str(key).partition(".")
    if kind not in KINDS or not name:
        raise PluginError(
            f"{key!r} is not a kind, a dot and a name, such as generators.slurm",
            where=where,
            hint=nearest(kind, KINDS),
        )
    owned = [info for info in plugins if same(info.distribution, distribution)]
    if not owned:
        raise PluginError(
            f"{key}: no plugin comes from {distribution!r}",
            where=where,
            hint=nearest(distribution, {info.distribution for info in plugins}),
        )
    offers = {
        f"{each}.{offer}"
        for item in loaded
        if same(item.info.distribution, distribution)
        for each in KINDS
        for offer in item.offers[each]
    }
    # What a plugin that was left out would have provided is not known; that it is left out was said.
    if key not in offers and not any(info.left_out for info in owned):
        raise PluginError(f"{distribution} does not provide {key}", where=where, hint=nearest(key, offers))


def check_block(block: Sequence[str], plugins: Sequence[PluginInfo]) -> None:
    known = {info.name for info in plugins} | {info.distribution for info in plugins}
    for name in block:
        if not any(same(name, each) for each in known):
            raise PluginError(
                f"there is no plugin or distribution {name!r}",
                where="plugins.block in motoko.yaml",
                hint=nearest(name, known),
            )
