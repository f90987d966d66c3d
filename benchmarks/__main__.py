"""Measure Motoko beside Motoko 0.1.4, in one run on one machine: ``make bench``.

The peer gets an environment of its own in ``.bench``. Both run the same script on the same workflow. Times
depend on the machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / ".bench" / "motoko-0.1.4"


def peer_python() -> Path:
    """The interpreter of an environment with Motoko 0.1.4, installed at the first call."""
    python = PEER / "bin" / "python"
    if not (PEER / "bin" / "motoko").exists():
        print("installing the peer, Motoko 0.1.4", file=sys.stderr)
        venv.create(PEER, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "motoko==0.1.4"], check=True)
    return python


def measured(python: Path, tasks: int) -> dict[str, float]:
    """Run the measurements with one interpreter, in a new directory."""
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory(prefix="mtkb-") as directory:
        command = [python, HERE / "measure.py", Path(directory) / "workflow", str(tasks)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=400, help="tasks in the study for createTask and select")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each; the median is shown")
    args = parser.parse_args()
    peer, ours = peer_python(), Path(sys.executable)
    results: dict[Path, list[dict[str, float]]] = {peer: [], ours: []}
    for _ in range(args.repeat):
        for python, found in results.items():  # in turn: a drift of the machine hits both
            found.append(measured(python, args.tasks))
    table = Table(title=f"medians of {args.repeat}")
    for title in ("what", "0.1.4", "now", "0.1.4 / now"):
        table.add_column(title, justify="left" if title == "what" else "right")
    for what in results[ours][0]:
        old, new = (median(found[what] for found in results[python]) for python in (peer, ours))
        table.add_row(escape(what), f"{old:.3g}", f"{new:.3g}", f"{old / new:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
