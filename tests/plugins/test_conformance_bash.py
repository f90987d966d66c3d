"""The bash generator passes the suite that every generator must pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from motoko_core.testing import GeneratorConformance


class TestBash(GeneratorConformance):
    generator = "bash"
    options: ClassVar[Mapping[str, Any]] = {"slots": 4}
