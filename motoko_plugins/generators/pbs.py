"""The PBS generator: runs are jobs of a cluster with OpenPBS, PBS Pro or TORQUE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import JobGenerator
from motoko_plugins.generators._pbs import Pbs
from motoko_plugins.generators._pbs_options import PbsOptions
from motoko_plugins.generators._scheduler_generator import SchedulerGenerator


class PbsGenerator(SchedulerGenerator):
    """Submits runs with ``qsub`` and follows them with ``qstat``."""

    launched_state: ClassVar[str] = "PBS submit"
    Options = PbsOptions
    scheduler_class = Pbs


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``pbs``."""
    return {"pbs": PbsGenerator}
