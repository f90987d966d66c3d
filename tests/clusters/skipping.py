"""Tests that need a scheduler: skipped where there is none, which the last lines of the run say.

With ``MOTOKO_REQUIRE_SLURM=1`` in the environment, which ``.ci/run`` sets, they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

_REASON = "scheduler not installed: "


def require(scheduler: str, *programs: str, path: str | None = None) -> None:
    """Skip this test, or fail, unless these programs are there."""
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if not missing:
        return
    message = f"{_REASON}{scheduler} ({', '.join(missing)})"
    if os.environ.get("MOTOKO_REQUIRE_SLURM") == "1":
        pytest.fail(f"{message}, and MOTOKO_REQUIRE_SLURM=1 forbids to skip this test", pytrace=False)
    pytest.skip(message)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have two clusters at most at once, however many test processes there are; they mostly wait."""
    for item in items:
        if "slurm_cluster" in getattr(item, "fixturenames", ()):
            is_plugin = item.path.parent.name == "plugins"
            item.add_marker(pytest.mark.xdist_group(f"SLURM, {'plugins' if is_plugin else 'workflows'}"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say at the very end what was not tested."""
    yield
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if _REASON in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_sep("=", "NOT TESTED: real SLURM", yellow=True, bold=True)
        terminalreporter.write_line(
            f"{len(skipped)} tests of SLURM and PBS were skipped: SLURM is not here. On Debian and Ubuntu: "
            "apt install slurm-wlm munge slurm-wlm-torque (`make test` does it where it runs as root)."
        )
