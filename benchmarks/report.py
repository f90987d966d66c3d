"""The table: both versions and their ratio, drawn on a terminal and in Markdown elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from statistics import linear_regression

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.figures import BUDGETS, FIGURES, Budget
from benchmarks.results import CUT, FAILED, OK, SKIPPED, Measurement, Results
from benchmarks.subjects import OWN, PEER

HEADERS = ("what", "runs", PEER, OWN, f"{PEER} / {OWN}")
BUDGET_HEADERS = ("what", "runs", "budget", "measured", "")
GROWTH_HEADERS = ("what", "expected", PEER, OWN)
#: Below, what does not depend on the number of runs hides the growth.
_GROWTH_FROM = 1_000


def show(results: Results) -> None:
    """Print the figures, how they grow, and the budgets beside those that they are set for."""
    for headers, rows in (
        (HEADERS, [*figure_rows(results)]),
        (GROWTH_HEADERS, [*growth_rows(results)]),
        (BUDGET_HEADERS, [*budget_rows(results)]),
    ):
        show_table(headers, rows)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, unless it has no rows."""
    if rows and sys.stdout.isatty():
        _draw(headers, rows)
    elif rows:
        print(markdown(headers, rows) + "\n")


def figure_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row for each figure at each size; the figure is named in the first."""
    before = None
    for figure, runs, peer, own in results.rows():
        title = f"{figure.title} [{figure.unit}]" if figure is not before else ""
        limit_s = results.settings["limit_s"]
        cells = (_cell(measurement, limit_s) for measurement in (peer, own))
        yield title, _size(runs), *cells, _ratio(peer, own)
        before = figure


def growth_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """For each figure the k with which it grows like n to the power of k, fitted from 1,000 runs on."""
    for figure in FIGURES.values():
        found = [_exponent(results.series(figure, subject)) for subject in (PEER, OWN)]
        if figure.growth and found != [None, None]:
            yield figure.title, figure.growth, *("" if k is None else f"n^{k:.2f}" for k in found)


def _exponent(series: Sequence[tuple[int, float]]) -> float | None:
    logs = [(math.log(runs), math.log(value)) for runs, value in series if runs >= _GROWTH_FROM]
    return linear_regression(*zip(*logs, strict=True)).slope if len(logs) > 1 else None


def budget_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row for each budget at whose size there is a measurement."""
    for budget in BUDGETS:
        figure = FIGURES[budget.figure]
        peer, own = (results.shown(figure, budget.runs, subject) for subject in (PEER, OWN))
        measured = quotient(peer, own) if budget.is_ratio else own.median if own else None
        if measured is None:
            continue
        text = f"{number(measured)} times" if budget.is_ratio else f"{number(measured)} {figure.unit}"
        yield figure.title, _size(budget.runs), budget.text, text, _verdict(budget, measured)


def _verdict(budget: Budget, measured: float) -> str:
    met = measured >= budget.limit if budget.is_ratio else measured <= budget.limit
    return "met" if met else "missed"


def number(value: float) -> str:
    """Three digits that count: 0.0123, 12.3, 12,300."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quotient(peer: Measurement | None, own: Measurement | None) -> float | None:
    """How many times as much the peer's is; None if one is missing."""
    if not peer or not own or not peer.median or not own.median:
        return None
    return peer.median / own.median


def _ratio(peer: Measurement | None, own: Measurement | None) -> str:
    found = quotient(peer, own)
    return "" if found is None or found < 0 else number(found)


def _cell(measurement: Measurement | None, limit_s: float) -> str:
    if measurement is None:
        return ""
    if measurement.status == OK:
        return number(measurement.median or 0)
    return shown_status(measurement, limit_s)


def shown_status(measurement: Measurement, limit_s: float) -> str:
    """What stands for a figure that is missing."""
    return {CUT: f"> {limit_s:g} s", FAILED: "failed", SKIPPED: "-"}[measurement.status]


def _size(runs: int | None) -> str:
    return "" if runs is None else f"{runs:,}"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the columns after the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [headers, rule, *rows])


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for number, header in enumerate(headers):
        table.add_column(escape(header), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
