"""Measure Motoko beside Motoko 0.1.4 and other engines, in one run on one machine: ``make bench``.

Times depend on the machine; the ratios and the growth are what counts. The table goes to standard output, the
data and the plot beside each other to ``--output``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report, schedule, throughput
from benchmarks.engines import ENGINES, LONG_S, TASKS
from benchmarks.engines import subjects as engine_subjects
from benchmarks.figures import BASELINE, POINTS, THROUGHPUT, Point
from benchmarks.machine import describe_machine
from benchmarks.page import write_page, write_throughput
from benchmarks.plot import plot
from benchmarks.results import Results
from benchmarks.schedule import Schedule
from benchmarks.studies import Studies
from benchmarks.subjects import STATE, Subject, own, peer

_SIZES = [100, 1_000, 10_000, 100_000]


def _size(text: str) -> int:
    runs = int(text.replace(",", "").replace("_", ""))
    if runs < BASELINE:
        raise argparse.ArgumentTypeError(f"{runs} runs are too few: {BASELINE} at least")
    return runs


def _tasks(text: str) -> int:
    tasks = int(text.replace(",", "").replace("_", ""))
    if tasks < 2:
        raise argparse.ArgumentTypeError(f"{tasks} tasks are too few: 2 at least")
    return tasks


def _parser() -> argparse.ArgumentParser:
    names = [point.name for point in (*POINTS, THROUGHPUT)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--sizes", type=_size, nargs="+", default=_SIZES, metavar="N", help="runs in the study")
    add("--tasks", type=_tasks, default=TASKS, metavar="N", help="short tasks that fast engines execute")
    add("--only", choices=names, nargs="+", default=names, metavar="NAME", help=f"of {', '.join(names)}")
    add("--repeat", type=int, default=3, help="repetitions, of which the median is shown")
    add("--limit", type=float, default=60, help="seconds after which a figure of a peer is given up")
    add("--seconds", type=float, default=2, help="how long a figure is repeated within a process")
    add("--no-peer", action="store_true", help="leave Motoko 0.1.4 and the other engines out")
    add(
        "--output",
        type=Path,
        default=STATE / "results.json",
        help="where the data goes, and the plot (.png); the throughput's goes to throughput.json beside it",
    )
    add("--docs", action="store_true", help="measure nothing: write docs/ from what --output names")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Answer the exit code: 1 if a script failed, whatever else was found."""
    args = _parser().parse_args(arguments)
    points = [point for point in POINTS if point.name in args.only]
    engines = args.output.with_name("throughput.json")
    if args.docs:
        if points:
            write_page(args.output, _SIZES)
        if THROUGHPUT.name in args.only:
            write_throughput(engines)
        return 0
    errors = _measure_versions(args, points, args.output) if points else []
    if THROUGHPUT.name in args.only:
        errors += _measure_engines(args, engines)
    print("\n".join(["", *errors]) if errors else "", file=sys.stderr)
    return 1 if errors else 0


def _measure_versions(args: argparse.Namespace, points: Sequence[Point], output: Path) -> list[str]:
    """Measure both versions; answer what went wrong."""
    subjects = [own()] if args.no_peer else [peer(args.limit), own()]
    results = _results(subjects, args, points=[point.name for point in points], sizes=sorted(args.sizes))
    errors = _measure(results, subjects, points, args, output)
    report.show(results)
    if plot(results, output.with_suffix(".png")):
        print(f"{output.with_suffix('.png')} shows how the figures grow", file=sys.stderr)
    return errors


def _measure_engines(args: argparse.Namespace, output: Path) -> list[str]:
    """Measure how many short tasks the engines execute; answer what went wrong."""
    chosen = [engine for engine in ENGINES if not (args.no_peer and engine.is_peer)]
    subjects = engine_subjects(chosen, args.tasks, args.limit)
    names = [engine.name for engine in chosen]
    results = _results(subjects, args, engines=names, tasks=args.tasks, sizes=[])
    errors = _measure(results, subjects, [THROUGHPUT], args, output, LONG_S)
    report.show_table(throughput.HEADERS, [*throughput.rows(results)])
    print(throughput.verdict(results))
    if throughput.plot(results, output.with_suffix(".png")):
        print(f"{output.with_suffix('.png')} shows the throughput", file=sys.stderr)
    return errors


def _results(subjects: Sequence[Subject], args: argparse.Namespace, **settings: object) -> Results:
    how = {"repeat": args.repeat, "limit_s": args.limit, "seconds": args.seconds}
    versions = {subject.name: subject.versions() for subject in subjects}
    return Results(describe_machine(), versions, {**settings, **how})


def _measure(
    results: Results,
    subjects: Sequence[Subject],
    points: Sequence[Point],
    args: argparse.Namespace,
    output: Path,
    long_s: float = schedule.LONG_S,
) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="mtkb-") as directory:  # short: it holds the paths of sockets
        studies = Studies(Path(directory).resolve(), own())
        planned = Schedule(studies, subjects, results, args.repeat, args.seconds, long_s)
        try:
            asyncio.run(planned.run(points, results.settings["sizes"], output))
        finally:
            studies.remove(studies.directory)
    results.save(output)
    return planned.errors


if __name__ == "__main__":
    # As Ctrl-C does: whoever ends a run that long does not want its servers to stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
