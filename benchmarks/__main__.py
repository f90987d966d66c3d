"""Measure Motoko beside Motoko 0.1.4, in one run on one machine: ``make bench``.

Times depend on the machine; the ratios and the growth are what counts. The table goes to standard output, the
data and the plot beside each other to ``--output``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.figures import BASELINE, POINTS
from benchmarks.machine import describe_machine
from benchmarks.page import write_page
from benchmarks.plot import plot
from benchmarks.results import Results
from benchmarks.schedule import Schedule
from benchmarks.studies import Studies
from benchmarks.subjects import STATE, own, peer

_SIZES = [100, 1_000, 10_000, 100_000]


def _size(text: str) -> int:
    runs = int(text.replace(",", "").replace("_", ""))
    if runs < BASELINE:
        raise argparse.ArgumentTypeError(f"{runs} runs are too few: {BASELINE} at least")
    return runs


def _parser() -> argparse.ArgumentParser:
    names = [point.name for point in POINTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--sizes", type=_size, nargs="+", default=_SIZES, metavar="N", help="runs in the study")
    add("--only", choices=names, nargs="+", default=names, metavar="NAME", help=f"of {', '.join(names)}")
    add("--repeat", type=int, default=3, help="repetitions, of which the median is shown")
    add("--limit", type=float, default=60, help="seconds after which a figure of 0.1.4 is given up")
    add("--seconds", type=float, default=2, help="how long a figure is repeated within a process")
    add("--no-peer", action="store_true", help="leave Motoko 0.1.4 out")
    add(
        "--output", type=Path, default=STATE / "results.json", help="where the data goes, and the plot (.png)"
    )
    add("--docs", action="store_true", help="measure nothing: write docs/performance.* from --output")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Answer the exit code: 1 if a script failed, whatever else was found."""
    args = _parser().parse_args(arguments)
    if args.docs:
        write_page(args.output, _SIZES)
        return 0
    subjects = [own()] if args.no_peer else [peer(args.limit), own()]
    results = Results(
        machine=describe_machine(),
        subjects={subject.name: subject.versions() for subject in subjects},
        settings={
            "points": args.only,
            "sizes": sorted(args.sizes),
            "repeat": args.repeat,
            "limit_s": args.limit,
            "seconds": args.seconds,
        },
    )
    with tempfile.TemporaryDirectory(prefix="mtkb-") as directory:  # short: it holds the paths of sockets
        studies = Studies(Path(directory).resolve(), subjects[-1])
        schedule = Schedule(studies, subjects, results, args.repeat, args.seconds)
        try:
            points = [point for point in POINTS if point.name in args.only]
            asyncio.run(schedule.run(points, args.sizes, args.output))
        finally:
            studies.remove(studies.directory)
    results.save(args.output)
    report.show(results)
    if plot(results, args.output.with_suffix(".png")):
        print(f"{args.output.with_suffix('.png')} shows how the figures grow", file=sys.stderr)
    print("\n".join(["", *schedule.errors]) if schedule.errors else "", file=sys.stderr)
    return 1 if schedule.errors else 0


if __name__ == "__main__":
    # As Ctrl-C does: whoever ends a run that long does not want its servers to stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
