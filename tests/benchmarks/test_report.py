"""What was measured becomes tables, a plot and a page; made-up numbers stand for what two versions do."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, report
from benchmarks.figures import BASELINE
from benchmarks.plot import plot
from benchmarks.results import CUT, SKIPPED, Results
from benchmarks.subjects import OWN, PEER

SIZES = [1_000, 10_000, 100_000]


@pytest.fixture
def results() -> Results:
    settings = {"points": ["selection"], "sizes": SIZES, "repeat": 3, "limit_s": 60}
    results = Results({}, {PEER: {}, OWN: {}}, settings)
    for runs in SIZES:
        for value in (1.0, 9.0, 2.0):
            results.note("select_few", runs, OWN, value, 100)
        results.note("selection_rss", runs, OWN, 1e8 + runs * 2048, 1)
    results.note("selection_rss", BASELINE, OWN, 1e8 + BASELINE * 2048, 1)
    results.note("select_few", 1_000, PEER, 150.0, 10)
    results.note("select_few", 10_000, PEER, 1500.0, 10)
    results.note_failure("select_half", 10_000, PEER, CUT)
    results.note_failure("select_half", 100_000, PEER, SKIPPED)
    return results


def test_median_and_ratio_are_shown(results: Results) -> None:
    rows = [row for row in report.figure_rows(results) if row[1] == "10,000"]
    assert rows[0][2:] == ("1,500", "2", "750")


def test_what_was_cut_says_so_and_is_not_extrapolated(results: Results) -> None:
    cells = {row[1]: row[2] for row in report.figure_rows(results) if row[2] in ("> 60 s", "-")}
    assert cells == {"10,000": "> 60 s", "100,000": "-"}


def test_memory_is_per_run_beside_the_smallest_study(results: Results) -> None:
    row = next(row for row in report.figure_rows(results) if row[0].startswith("memory"))
    assert row[1:] == ("1,000", "", "2", "")


def test_growth_is_an_exponent(results: Results) -> None:
    assert ("warm: select by state, 10 matches", "flat", "n^1.00", "n^0.00") in [*report.growth_rows(results)]


def test_budgets_stand_beside_the_figures_that_they_are_set_for(results: Results) -> None:
    few = "warm: select by state, 10 matches"
    assert [*report.budget_rows(results)] == [
        (few, "100,000", "1 ms + 5 us per match", "2 ms", "missed"),
        (few, "10,000", "500 times faster than 0.1.4", "750 times", "met"),
    ]


def test_results_are_read_back_as_they_were(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_plot_is_an_image(results: Results, tmp_path: Path) -> None:
    assert plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_page_is_refused_a_quick_run(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    with pytest.raises(SystemExit, match=r"does not hold steps, .* 100 runs: run `make bench` whole"):
        page.write_page(tmp_path / "results.json", [100, *SIZES], tmp_path)


def test_page_in_the_documentation_shows_its_data() -> None:
    text = (page.DOCS / "performance.md").read_text()
    assert page.replaced(text, Results.load(page.DOCS / "performance.json")) == text, (
        "docs/performance.md was edited between its marks: python -m benchmarks --docs writes it"
    )
