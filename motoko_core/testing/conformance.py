"""The conformance suite of job generators."""

from __future__ import annotations

from motoko_core.testing.adoption import AdoptionTests
from motoko_core.testing.jobs import JobTests
from motoko_core.testing.launching import LauncherTests

__all__ = ["GeneratorConformance"]


class GeneratorConformance(JobTests, AdoptionTests, LauncherTests):
    """Every test that a job generator must pass; a subclass names the generator, and is a test class.

    .. code-block:: python

        from motoko_core.testing import GeneratorConformance


        class TestMine(GeneratorConformance):
            generator = "mine"
            options = {"queue": "debug"}

    The generator comes from the installed plugins, as for a workflow. Its jobs are real. One half of the
    tests uses the generator alone. The other half runs a workflow with real database servers, and kills its
    launcher with ``kill -9`` at one step after another.
    """
