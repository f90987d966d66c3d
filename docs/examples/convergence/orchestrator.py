"""Refine a computation until its result no longer changes, then write a report.

How many runs this takes is not known before: the loop looks at each result. That is a `while` in
Python, and nothing else.
"""

from pathlib import Path


def populate_arg_parser(parser):
    parser.add_argument("--tolerance", type=float, default=1e-6, help="largest change that counts as none")
    parser.add_argument("--max-n", type=int, default=2**14, help="give up beyond this many intervals")


async def main(workflow, tolerance, max_n, **params):
    n, change, previous = 4, float("inf"), None

    print(f"{'task':<12} {'n':>6}  {'integral':<14}  change")
    while change > tolerance:
        if n > max_n:
            raise RuntimeError(f"no convergence to {tolerance:g} with up to {max_n} intervals")
        [(run, _job)] = await workflow.refine.createTask(n=n)
        integral = run.integral
        if previous is not None:
            change = abs(integral - previous)
        print(f"integrate.{run.id:<2} {n:>6}  {integral:<14.10f}  {change:.3g}")
        previous, n = integral, 2 * n

    [(report, _job)] = await workflow.report.createTask(n=n // 2, integral=integral, change=change)
    print_report(report)


def print_report(run):
    print(Path(run.run_path, "report.txt").read_text(), end="")
