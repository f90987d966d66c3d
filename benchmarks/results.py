"""What was found: kept as JSON, read back for tables, plots and the page in docs/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from benchmarks.figures import BASELINE, FIGURES, THROUGHPUT, Figure
from benchmarks.subjects import OWN, PEER

#: What became of a measurement: it took longer than the limit, it ended with an error, or it was left out
#: because the same with fewer runs had not succeeded.
OK, CUT, FAILED, SKIPPED = "ok", "cut", "failed", "skipped"


@attrs.define
class Measurement:
    """One figure of one version or engine at one size.

    :param figure: the name that the script reports.
    :param runs: in the study; None if the figure does not depend on it.
    :param values: one for each repetition.
    :param samples: what each value is made of: calls, tasks, events.
    """

    figure: str
    runs: int | None
    subject: str
    status: str = OK
    values: list[float] = attrs.Factory(list)
    samples: list[int] = attrs.Factory(list)

    @property
    def median(self) -> float | None:
        """The median of the repetitions; None if there is none."""
        return median(self.values) if self.values else None


@attrs.define
class Results:
    """A run of the benchmarks.

    :param subjects: the versions of the packages, by the name of the version of Motoko or of the engine.
    :param settings: how it was measured: sizes, repetitions, limit.
    """

    machine: dict[str, Any]
    subjects: dict[str, dict[str, str]]
    settings: dict[str, Any]
    measurements: list[Measurement] = attrs.Factory(list)

    def at(self, figure: str, runs: int | None, subject: str) -> Measurement | None:
        """A raw measurement."""
        wanted = figure, runs, subject
        return next((m for m in self.measurements if (m.figure, m.runs, m.subject) == wanted), None)

    def note(self, figure: str, runs: int | None, subject: str, value: float, samples: int) -> None:
        """Add a repetition."""
        found = self.at(figure, runs, subject)
        if found is None:
            self.measurements.append(found := Measurement(figure, runs, subject))
        found.values.append(value)
        found.samples.append(samples)

    def note_failure(self, figure: str, runs: int | None, subject: str, status: str) -> None:
        """Say why there is no value."""
        self.measurements.append(Measurement(figure, runs, subject, status))

    def shown(self, figure: Figure, runs: int | None, subject: str) -> Measurement | None:
        """A measurement as it is shown: memory per run beside that of the smallest study."""
        if not figure.source:
            return self.at(figure.name, runs, subject)
        found, baseline = self.at(figure.source, runs, subject), self.at(figure.source, BASELINE, subject)
        if found is None or runs is None or runs < figure.least_runs:
            return None
        if baseline is None or baseline.median is None:
            return attrs.evolve(found, status=SKIPPED)
        values = [(value - baseline.median) / (runs - BASELINE) / 1024 for value in found.values]
        return attrs.evolve(found, values=values)

    def series(self, figure: Figure, subject: str) -> list[tuple[int, float]]:
        """(runs, median) where there is one that a logarithm can be taken of."""
        found = [(runs, self.shown(figure, runs, subject)) for runs in self.settings["sizes"]]
        return [(runs, m.median) for runs, m in found if m and m.median and m.median > 0]

    def rows(self) -> Iterator[tuple[Figure, int | None, Measurement | None, Measurement | None]]:
        """Figure, size, and what was found for either version, peer first; those that were not asked for
        are left out."""
        for figure in FIGURES.values():
            for runs in [None, *self.settings["sizes"]]:
                pair = [self.shown(figure, runs, subject) for subject in (PEER, OWN)]
                if any(pair):
                    yield figure, runs, *pair

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**attrs.asdict(self), "summary": [*self._summary()]}, indent=1) + "\n")

    def _summary(self) -> Iterator[dict[str, Any]]:
        """What the table shows, for who reads the file."""
        for figure, runs, *pair in self.rows():
            yield _described(figure, runs, {m.subject: m for m in pair if m})
        for figure in THROUGHPUT.figures:
            if found := {m.subject: m for m in self.measurements if m.figure == figure.name}:
                yield _described(figure, None, found)

    @classmethod
    def load(cls, path: Path) -> Results:
        content = json.loads(path.read_text())
        del content["summary"]
        measurements = [Measurement(**m) for m in content.pop("measurements")]
        return cls(**content, measurements=measurements)


def _described(figure: Figure, runs: int | None, found: dict[str, Measurement]) -> dict[str, Any]:
    values = {name: (m.median if m.status == OK else m.status) for name, m in found.items()}
    return {"figure": figure.name, "title": figure.title, "unit": figure.unit, "runs": runs, **values}
