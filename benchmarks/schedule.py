"""What is run when: every point at every size, the versions in turn, until one has had enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import BASELINE, Point
from benchmarks.process import PointCut, PointFailed, figures
from benchmarks.results import CUT, FAILED, OK, SKIPPED, Results
from benchmarks.studies import Studies
from benchmarks.subjects import Subject

#: Repeating does not make a point better that takes longer: what varies is small beside it.
LONG_S = 15.0


class Schedule:
    """Measures points into results.

    :param subjects: the versions, or the engines.
    :param repeat: how often each point is measured; one that takes long, once.
    :param seconds: how long a script repeats a figure.
    :param long_s: a point that takes longer is measured once.
    """

    def __init__(
        self,
        studies: Studies,
        subjects: Sequence[Subject],
        results: Results,
        repeat: int,
        seconds: float,
        long_s: float = LONG_S,
    ) -> None:
        self._long_s = long_s
        self._studies = studies
        self._subjects = subjects
        self._results = results
        self._repeat = repeat
        self._seconds = seconds
        self._over: set[tuple[Point, Subject]] = set()
        #: What went wrong, in words.
        self.errors: list[str] = []

    async def run(self, points: Sequence[Point], sizes: Sequence[int], output: Path) -> None:
        """Measure points at sizes; what was found is saved after each size."""
        await self._measure_all([point for point in points if not point.is_sized], None)
        if BASELINE not in sizes:
            await self._measure_all([point for point in points if point.with_baseline], BASELINE)
        for runs in sorted(sizes):
            await self._measure_all([point for point in points if point.is_sized], runs)
            self._studies.forget(runs)
            self._results.save(output)

    async def _measure_all(self, points: Sequence[Point], runs: int | None) -> None:
        shared: dict[Subject, Path] = {}
        for point in points:
            for subject in self._subjects:
                if (point, subject) in self._over:
                    self._note_missing(point, runs, subject, SKIPPED)
            await self._measure(point, runs, shared)
        for directory in shared.values():
            self._studies.remove(directory)

    async def _measure(self, point: Point, runs: int | None, shared: dict[Subject, Path]) -> None:
        left = [subject for subject in self._subjects if (point, subject) not in self._over]
        for number in range(self._repeat):
            # In turn, and every other time the other way round: a drift of the machine hits both.
            for subject in left[:: -1 if number % 2 else 1]:
                begin = time.perf_counter()
                status = await self._run(point, runs, subject, shared)
                taken = time.perf_counter() - begin
                self._say(point, runs, subject, f"{taken:.1f} s" + ("" if status == OK else f", {status}"))
                if status != OK:
                    self._over.add((point, subject))
                if status != OK or taken > self._long_s:
                    left = [other for other in left if other != subject]

    async def _run(
        self, point: Point, runs: int | None, subject: Subject, shared: dict[Subject, Path]
    ) -> str:
        settings = ["--runs", runs or 0, "--seconds", self._seconds, *point.settings(runs, subject.poll_s)]
        settings += subject.settings
        directory = None
        try:
            directory = shared.get(subject) or await self._directory(point, runs, subject)
            if not point.alone:
                shared[subject] = directory
            async for found in figures(subject, point.script, directory, *settings):
                self._results.note(found["figure"], runs, subject.name, found["value"], found["samples"])
        except PointCut:
            status = CUT
        except PointFailed as error:
            self.errors.append(f"{_title(point, runs, subject)}:\n{error}")
            status = FAILED
        else:
            return OK
        finally:
            if point.alone and directory is not None:
                # What failed must not disturb the next one. Small directories stay until the end: for half a
                # minute after many files were deleted, ext4 takes thirty times as long to make a new one.
                dispose = self._studies.remove if point.is_sized else self._studies.end
                dispose(directory)
        self._note_missing(point, runs, subject, status)
        return status

    async def _directory(self, point: Point, runs: int | None, subject: Subject) -> Path:
        if not point.is_sized:
            return self._studies.empty()
        return await self._studies.copy((runs or 0) if point.filled else 0, subject)

    def _note_missing(self, point: Point, runs: int | None, subject: Subject, status: str) -> None:
        """The first figure that is missing has that status, and those after it were not come to."""
        for name in (figure.source or figure.name for figure in point.figures):
            if self._results.at(name, runs, subject.name) is None:
                self._results.note_failure(name, runs, subject.name, status)
                status = SKIPPED

    def _say(self, point: Point, runs: int | None, subject: Subject, text: str) -> None:
        print(f"{_title(point, runs, subject)}: {text}", file=sys.stderr, flush=True)


def _title(point: Point, runs: int | None, subject: Subject) -> str:
    size = "" if runs is None else f", {runs:,} runs"
    return f"{point.name}{size}, {subject.name}"
