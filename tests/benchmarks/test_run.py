"""The benchmarks run from end to end; what they find is not asserted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.engines import OWN_ENGINE
from benchmarks.figures import FIGURES, THROUGHPUT
from benchmarks.process import PointCut, PointFailed, prepare
from benchmarks.results import OK, Results
from benchmarks.subjects import OWN, Subject, own


@pytest.fixture
def short_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this process puts temporary files: short, as paths of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="mtk-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


@pytest.mark.timeout(300)
def test_every_figure_is_measured_and_written(
    tmp_path: Path, short_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results.json"
    arguments = ["--sizes", "20", "--repeat", "1", "--seconds", "0.05", "--no-peer", "--output", str(output)]
    assert main([*arguments, "--tasks", "20"]) == 0
    results = Results.load(output)
    for figure in FIGURES.values():
        sized = figure.name not in ("create_studies", "chain")
        found = results.at(figure.source or figure.name, 20 if sized else None, OWN)
        assert found is not None, figure.name
        assert (found.status, len(found.values)) == (OK, 1)
        assert found.values[0] > 0
    content = json.loads(output.read_text())
    assert {"processor", "cores", "date", "fsync_ms"} <= content["machine"].keys()
    assert {"Python", "motoko", "BlackDynamite", "ZODB", "ZEO"} <= content["subjects"][OWN].keys()
    assert {"figure", "title", "unit", "runs", OWN} == content["summary"][0].keys()
    engines = Results.load(output.with_name("throughput.json"))
    for figure in THROUGHPUT.figures:
        found = engines.at(figure.name, None, OWN_ENGINE.name)
        assert found is not None, figure.name
        assert (found.status, len(found.values)) == (OK, 1)
    shown = capsys.readouterr().out
    assert "| motoko info, the whole process [s] | 20 |" in shown
    assert f"| {OWN_ENGINE.name} | {engines.subjects[OWN_ENGINE.name]['motoko']} | 20 |" in shown
    assert not [*short_directory.iterdir()]
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(short_directory) in command]


async def test_script_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    hasty = Subject(OWN, own().python, limit_s=0.01, poll_s=0.02)
    with pytest.raises(PointCut):
        await prepare(hasty, "fill", tmp_path)


async def test_script_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PointFailed, match=r"motoko\.yaml"):
        await prepare(own(), "serve", tmp_path)
