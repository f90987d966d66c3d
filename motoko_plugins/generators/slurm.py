"""The SLURM generator: runs are jobs of a cluster, in arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import JobGenerator
from motoko_plugins.generators._scheduler_generator import SchedulerGenerator
from motoko_plugins.generators._slurm import Slurm
from motoko_plugins.generators._slurm_options import SlurmOptions


class SlurmGenerator(SchedulerGenerator):
    """Submits runs with ``sbatch`` and follows them with ``squeue`` and, where it works, ``sacct``."""

    launched_state: ClassVar[str] = "SLURM submit"
    Options = SlurmOptions
    scheduler_class = Slurm


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``slurm``."""
    return {"slurm": SlurmGenerator}
