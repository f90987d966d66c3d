"""The throughput of engines becomes a table, a verdict, a plot and a part of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import engines, page, subjects, throughput
from benchmarks.engines import ENGINES, OWN_ENGINE, PEER_ENGINE, TASKS, Engine
from benchmarks.results import CUT, Results

SPAWN, FAST, STORING = ENGINES[1], ENGINES[3], ENGINES[5]
MISSING = ENGINES[-2]


@pytest.fixture
def results() -> Results:
    chosen = [OWN_ENGINE, SPAWN, FAST, STORING, PEER_ENGINE]
    versions = {engine.name: {engine.package or "motoko": "1.2.3", "Python": "3.11"} for engine in chosen}
    names = [*versions, MISSING.name]
    results = Results({}, versions, {"engines": names, "tasks": TASKS, "limit_s": 60, "sizes": []})
    for engine, values in (
        (OWN_ENGINE, (400, 100, 600)),
        (SPAWN, (1000,)),
        (FAST, (500,)),
        (STORING, (200,)),
    ):
        for value in values:
            results.note("throughput", None, engine.name, value, TASKS)
            results.note("throughput_created", None, engine.name, value * 0.9, TASKS)
        results.note("step", None, engine.name, 2.5, 20)
        results.note("start", None, engine.name, 0.5, 1)
    results.note_failure("throughput", None, PEER_ENGINE.name, CUT)
    return results


def test_fastest_engine_comes_first_with_its_ratio_to_motoko(results: Results) -> None:
    rows = [dict(zip(throughput.HEADERS, row, strict=True)) for row in throughput.rows(results)]
    assert [row["engine"] for row in rows[:4]] == [SPAWN.name, FAST.name, OWN_ENGINE.name, STORING.name]
    assert [row["Motoko / it"] for row in rows[:4]] == ["0.4", "0.8", "1", "2"]


def test_row_shows_medians_version_and_what_a_crash_leaves(results: Results) -> None:
    row = next(row for row in throughput.rows(results) if row[0] == OWN_ENGINE.name)
    assert row[1:] == ("1.2.3", "2,000", "400", "360", "1", "2.5 ms", "0.5 s", "every state")


def test_engine_that_was_given_up_or_is_not_there_has_a_row_that_says_so(results: Results) -> None:
    cells = {row[0]: row[3] for row in throughput.rows(results)}
    assert cells[PEER_ENGINE.name] == "> 60 s"
    assert cells[MISSING.name] == "not installed"


def test_budget_is_missed_when_a_peer_executes_more_tasks(results: Results) -> None:
    assert throughput.verdict(results).endswith(f"Motoko: 400; the best of them, {FAST.name}: 500; missed.")


def test_budget_is_met_when_only_spawning_alone_is_faster(results: Results) -> None:
    results.settings["engines"].remove(FAST.name)
    assert throughput.verdict(results).endswith(f"Motoko: 400; the best of them, {STORING.name}: 200; met.")


def test_without_peers_there_is_no_verdict(results: Results) -> None:
    results.settings["engines"] = [OWN_ENGINE.name, SPAWN.name]
    assert not throughput.verdict(results)


def test_plot_is_an_image(results: Results, tmp_path: Path) -> None:
    assert throughput.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_one_engine_is_not_plotted(results: Results, tmp_path: Path) -> None:
    results.settings["engines"] = [OWN_ENGINE.name]
    assert not throughput.plot(results, tmp_path / "plot.png")


def test_page_is_refused_a_run_with_few_tasks_or_engines(results: Results, tmp_path: Path) -> None:
    results.settings["tasks"] = 20
    results.save(tmp_path / "throughput.json")
    with pytest.raises(SystemExit, match=r"does not hold spawning alone: asyncio, .* 2,000 tasks: run `make"):
        page.write_throughput(tmp_path / "throughput.json", tmp_path)


def test_page_in_the_documentation_shows_its_data() -> None:
    text = (page.DOCS / "performance.md").read_text()
    assert page.replaced_throughput(text, Results.load(page.DOCS / "throughput.json")) == text, (
        "docs/performance.md was edited between its marks: python -m benchmarks --docs writes it"
    )


def test_engine_that_cannot_be_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subjects, "STATE", tmp_path)
    nowhere = Engine("Nowhere", "nowhere", str(tmp_path / "nowhere.whl"))
    assert engines.subjects([nowhere, SPAWN], 10, 60)[0].name == SPAWN.name
    assert "Nowhere is left out" in capsys.readouterr().err
