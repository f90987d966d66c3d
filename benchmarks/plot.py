"""How each figure grows with the number of runs: log-log, both versions and the budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES, LINES, Figure
from benchmarks.results import Results
from benchmarks.subjects import OWN, PEER

_COLUMNS = 3
_STYLES = {PEER: {"color": "tab:orange", "marker": "s"}, OWN: {"color": "tab:blue", "marker": "o"}}


def plot(results: Results, path: Path) -> bool:
    """Write the plot as PNG; answer False if there are not two sizes, and nothing to plot."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    sizes = results.settings["sizes"]
    figures = [figure for figure in FIGURES.values() if figure.growth and results.series(figure, OWN)]
    if len(sizes) < 2 or not figures:
        return False
    rows = math.ceil(len(figures) / _COLUMNS)
    canvas, grid = plt.subplots(rows, _COLUMNS, figsize=(10.5, 2.3 * rows), squeeze=False, sharex=True)
    for axes, figure in zip(grid.flat, figures, strict=False):
        _draw(axes, results, figure, sizes)
    for axes in grid.flat[len(figures) :]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    canvas.supxlabel("runs in the study", fontsize=9)
    canvas.tight_layout(rect=(0, 0, 1, 0.97))
    canvas.savefig(path, dpi=85, metadata={"Software": None})
    plt.close(canvas)
    return True


def _draw(axes: Any, results: Results, figure: Figure, sizes: list[int]) -> None:
    for subject, style in _STYLES.items():
        points = results.series(figure, subject)
        axes.loglog(*zip(*points, strict=True) if points else ([], []), label=f"Motoko {subject}", **style)
    budget = LINES.get(figure.name)
    limits = [budget(runs) for runs in sizes] if budget else [math.nan] * len(sizes)
    axes.loglog(sizes, limits, color="gray", linestyle="--", linewidth=1, label="budget")
    axes.set_title(figure.title, fontsize=8)
    axes.set_ylabel(figure.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    # Two decades at least, or noise would look like growth.
    low, high = axes.get_ylim()
    middle = math.sqrt(low * high)
    axes.set_ylim(min(low, middle / 10), max(high, middle * 10))
    axes.yaxis.set_minor_formatter("")
    axes.grid(which="major", linewidth=0.4)
