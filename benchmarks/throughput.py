"""The throughput of short shell tasks: Motoko beside other engines, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.engines import ENGINES, OWN_ENGINE, Engine
from benchmarks.report import number, shown_status
from benchmarks.results import Measurement, Results

HEADERS = (
    "engine",
    "version",
    "tasks",
    "tasks/s",
    "with creation",
    "Motoko / it",
    "step of a chain",
    "start",
    "left after a crash",
)
#: What the plot shows them in: those that store every state, the others, and those that are no engines.
_DURABLE, _OTHERS, _NONE = "tab:blue", "tab:orange", "lightgray"


def throughput(results: Results, engine: Engine) -> float | None:
    """Tasks per second; None if that was not measured."""
    found = results.at("throughput", None, engine.name)
    return found.median if found else None


def measured(results: Results) -> list[Engine]:
    """The engines of a run, the fastest first; at the end those that could not be measured."""
    wanted = [engine for engine in ENGINES if engine.name in results.settings["engines"]]
    return sorted(wanted, key=lambda engine: -(throughput(results, engine) or 0))


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row for each engine."""
    own = throughput(results, OWN_ENGINE)
    for engine in measured(results):
        if engine.name not in results.subjects:
            yield engine.name, "", "", "not installed", *[""] * (len(HEADERS) - 4)
            continue
        per_s, created, step, start = (
            results.at(figure, None, engine.name)
            for figure in ("throughput", "throughput_created", "step", "start")
        )
        ratio = number(own / per_s.median) if own and per_s and per_s.median else ""
        yield (
            engine.name,
            _version(results, engine),
            f"{per_s.samples[0]:,}" if per_s and per_s.samples else "",
            _cell(results, per_s),
            _cell(results, created),
            ratio,
            _cell(results, step, " ms"),
            _cell(results, start, " s"),
            engine.survives,
        )


def _version(results: Results, engine: Engine) -> str:
    versions = results.subjects[engine.name]
    return versions.get(engine.package or "motoko") or f"Python {versions['Python']}"


def _cell(results: Results, measurement: Measurement | None, unit: str = "") -> str:
    if measurement is None:
        return ""
    if measurement.median is None:
        return shown_status(measurement, results.settings["limit_s"])
    return number(measurement.median) + unit


def verdict(results: Results) -> str:
    """The budget beside what was measured; "" if Motoko or its peers were not."""
    own = throughput(results, OWN_ENGINE)
    peers = [engine for engine in measured(results) if engine.is_peer and throughput(results, engine)]
    if not own or not peers:
        return ""
    best = throughput(results, peers[0]) or 0
    return (
        f"Budget: more tasks/s than any peer. Motoko: {number(own)}; the best of them, {peers[0].name}: "
        f"{number(best)}; {'met' if own > best else 'missed'}."
    )


def plot(results: Results, path: Path) -> bool:
    """Write the plot as PNG; answer False if there are not two engines to compare."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    found = [(engine, value) for engine in measured(results) if (value := throughput(results, engine))]
    if len(found) < 2:
        return False
    canvas, axes = plt.subplots(figsize=(8.5, 0.6 + 0.3 * len(found)))
    names = [engine.name for engine, _ in found]
    values = [value for _, value in found]
    bars = axes.barh(names, values, color=[_color(engine) for engine, _ in found])
    axes.bar_label(bars, [number(value) for value in values], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 2)
    axes.invert_yaxis()
    axes.set_xlabel("tasks per second", fontsize=9)
    axes.tick_params(labelsize=8)
    labels = {_DURABLE: "every state is stored", _OTHERS: "not every state is stored", _NONE: "no engine"}
    axes.legend(
        handles=[Patch(color=color, label=label) for color, label in labels.items()],
        loc="lower right",
        fontsize=8,
    )
    canvas.tight_layout()
    canvas.savefig(path, dpi=85, metadata={"Software": None})
    plt.close(canvas)
    return True


def _color(engine: Engine) -> str:
    if not engine.survives:
        return _NONE
    return _DURABLE if engine.survives == OWN_ENGINE.survives else _OTHERS
