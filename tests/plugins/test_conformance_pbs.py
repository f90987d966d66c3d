"""The PBS generator, with the programs that come with SLURM, passes the suite of all generators."""

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
    many: ClassVar[int] = 60

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
