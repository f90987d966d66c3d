"""A clock that the tests drive."""

from __future__ import annotations

import pytest

from motoko_core.workflow import Workflow
from tests.driving import Clock


@pytest.fixture
def clock(workflow: Workflow) -> Clock:
    """The engine's clock on the ``workflow`` fixture: it stands still until it is told to go on."""
    return Clock(workflow)
