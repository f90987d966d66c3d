"""The PBS generator passes the suite that every generator must pass, with SLURM's qsub on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from motoko_core.testing import GeneratorConformance
from tests.clusters.skipping import require
from tests.clusters.slurm import PATH, PROGRAMS, SlurmCluster


class TestPbs(GeneratorConformance):
    """On a cluster of its own, whose jobs are processes of this machine."""

    generator = "pbs"
    options: ClassVar[Mapping[str, Any]] = {"poll_interval_s": 0.3, "lost_after_s": 3.0}

    # These take minutes, and try what both have of their common base: see test_conformance_slurm.py.
    test_a_launcher_that_dies_is_continued = None
    test_a_launcher_that_dies_again_and_again = None
    test_many_runs_of_a_study = None
    test_many_jobs = None

    @pytest.fixture(scope="class")
    @classmethod
    def scheduler(cls) -> Iterator[None]:
        """A cluster, of which this process and what it starts are clients."""
        require("PBS on SLURM", *PROGRAMS, "qsub", "qstat", "qdel", path=PATH)
        cluster = SlurmCluster()
        try:
            cluster.start()
            with pytest.MonkeyPatch.context() as patch:
                for name, value in cluster.environment.items():
                    patch.setenv(name, value)
                yield
        finally:
            cluster.stop()
