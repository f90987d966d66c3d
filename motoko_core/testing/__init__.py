"""Tests that the author of a plugin inherits: what Motoko's own plugins must pass.

Needs pytest: ``pip install "motoko[testing]"``.
"""

import pytest

# An assertion that fails in here shows its values, as one in a test module does.
pytest.register_assert_rewrite(
    "motoko_core.testing.adoption",
    "motoko_core.testing.following",
    "motoko_core.testing.jobs",
    "motoko_core.testing.launching",
    "motoko_core.testing.study",
)

from motoko_core.testing.conformance import GeneratorConformance  # noqa: E402 - after the line above

__all__ = ["GeneratorConformance"]
