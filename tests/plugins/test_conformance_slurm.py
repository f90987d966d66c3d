"""The SLURM generator passes the suite that every generator must pass, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from motoko_core.testing import GeneratorConformance
from tests.clusters.skipping import require
from tests.clusters.slurm import PATH, PROGRAMS, SlurmCluster


class TestSlurm(GeneratorConformance):
    """On a cluster of its own, whose jobs are processes of this machine."""

    generator = "slurm"
    options: ClassVar[Mapping[str, Any]] = {"poll_interval_s": 0.3, "lost_after_s": 3.0}

    @pytest.fixture(scope="class")
    @classmethod
    def scheduler(cls) -> Iterator[None]:
        """A cluster, of which this process and what it starts are clients."""
        require("SLURM", *PROGRAMS, path=PATH)
        cluster = SlurmCluster()
        try:
            cluster.start()
            with pytest.MonkeyPatch.context() as patch:
                for name, value in cluster.environment.items():
                    patch.setenv(name, value)
                yield
        finally:
            cluster.stop()
