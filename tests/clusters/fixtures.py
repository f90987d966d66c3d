"""A SLURM cluster for the tests that ask for `slurm_cluster`."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.clusters.skipping import require
from tests.clusters.slurm import PATH, PROGRAMS, SlurmCluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a test that has failed what its cluster said: its directory will be gone."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("slurm_cluster")
    if report.failed and cluster is not None:
        report.sections.append(("SLURM", cluster.logs()))
    return report


@pytest.fixture(scope="session")
def _slurm_cluster() -> Iterator[SlurmCluster]:
    """One cluster per test process: damage that a test does to its own does not reach the others."""
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def slurm_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A SLURM cluster, up and without jobs; this process and what it starts are clients of it."""
    require("SLURM", *PROGRAMS, path=PATH)
    cluster: SlurmCluster = request.getfixturevalue("_slurm_cluster")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.reset()
