"""docs/performance.md: what stands between its marks is written from a result, the rest by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import report, throughput
from benchmarks.engines import ENGINES, TASKS
from benchmarks.figures import POINTS
from benchmarks.plot import plot
from benchmarks.report import markdown
from benchmarks.results import Results
from benchmarks.subjects import HERE, OWN, PEER

DOCS = HERE.parent / "docs"
BEGIN = "<!-- Written by `python -m benchmarks --docs`; do not edit. -->\n"
BEGIN_THROUGHPUT = "<!-- Written by `python -m benchmarks --docs --only throughput`; do not edit. -->\n"
END = "<!-- The end of what is written by a command. -->\n"


def write_page(source: Path, sizes: list[int], docs: Path = DOCS) -> None:
    """Bring the page, its plot and its data up to date.

    :param source: the JSON file of a run.
    :param sizes: those that the page has to show; a quick run is refused.
    """
    results = Results.load(source)
    missing = [point.name for point in POINTS if point.name not in results.settings["points"]]
    missing += [f"{runs:,} runs" for runs in sizes if runs not in results.settings["sizes"]]
    missing += [name for name in (PEER, OWN) if name not in results.subjects]
    if missing:
        sys.exit(f"{source} does not hold {', '.join(missing)}: run `make bench` whole first")
    plot(results, docs / "performance.png")
    results.save(docs / "performance.json")
    page = docs / "performance.md"
    page.write_text(replaced(page.read_text(), results))
    print(f"{page}, its plot and its data are written from {source}", file=sys.stderr)


def write_throughput(source: Path, docs: Path = DOCS) -> None:
    """Bring the throughput on the page, its plot and its data up to date.

    :param source: the JSON file of a run; a quick one is refused.
    """
    results = Results.load(source)
    missing = [engine.name for engine in ENGINES if engine.name not in results.settings["engines"]]
    if results.settings["tasks"] < TASKS:
        missing.append(f"{TASKS:,} tasks")
    if missing:
        sys.exit(f"{source} does not hold {', '.join(missing)}: run `make bench` whole first")
    throughput.plot(results, docs / "throughput.png")
    results.save(docs / "throughput.json")
    page = docs / "performance.md"
    page.write_text(replaced_throughput(page.read_text(), results))
    print(f"the throughput in {page}, its plot and its data are written from {source}", file=sys.stderr)


def replaced(page: str, results: Results) -> str:
    """The text of the page with the part about the versions anew."""
    return _replaced(page, BEGIN, _written(results))


def replaced_throughput(page: str, results: Results) -> str:
    """The text of the page with the part about the engines anew."""
    text = [
        _measured_on(results),
        markdown(throughput.HEADERS, [*throughput.rows(results)]),
        throughput.verdict(results),
        "![Short tasks per second, each engine](throughput.png)",
    ]
    return _replaced(page, BEGIN_THROUGHPUT, "\n\n".join(filter(None, text)))


def _replaced(page: str, begin: str, text: str) -> str:
    before, _, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit("docs/performance.md has lost the marks around what is written into it")
    return f"{before}{begin}\n{text}\n{END}{after}"


def _measured_on(results: Results) -> str:
    machine, repeat = results.machine, results.settings["repeat"]
    repeated = f"Medians of {repeat} repetitions." if repeat > 1 else "Everything was measured once."
    day = machine["date"].replace("T", " ").replace("+00:00", " UTC")
    return (
        f"Measured on {day}, with {machine['cores']} cores ({machine['processor']}) and "
        f"{machine['memory_gb']:g} GB of memory under {machine['system']}; an fsync took "
        f"{machine['fsync_ms']:g} ms. {repeated}"
    )


def _written(results: Results) -> str:
    packages = [
        (name, *(results.subjects[s].get(name, "") for s in (PEER, OWN))) for name in results.subjects[OWN]
    ]
    return "\n\n".join(
        [
            _measured_on(results),
            markdown(("package", PEER, OWN), packages),
            "### Budgets",
            markdown(report.BUDGET_HEADERS, [*report.budget_rows(results)]),
            "### Growth",
            "![Each figure against the number of runs, both versions](performance.png)",
            markdown(report.GROWTH_HEADERS, [*report.growth_rows(results)]),
            "### Figures",
            markdown(report.HEADERS, [*report.figure_rows(results)]),
        ]
    )
