"""Write report.txt into the current directory: a plain program, which can also be tried by hand."""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--n", type=int, required=True)
parser.add_argument("--integral", type=float, required=True)
parser.add_argument("--change", type=float, required=True)
args = parser.parse_args()

Path("report.txt").write_text(
    f"integral   {args.integral:.12f}\n"
    f"intervals  {args.n}\n"
    f"changed by {args.change:.3g} in the last refinement\n"
)
