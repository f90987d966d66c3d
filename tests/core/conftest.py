"""Distributions with plugins, which really are on ``sys.path``."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motoko_core.plugins import PluginInfo, PluginRegistry

#: What the module of every plugin begins with.
PREAMBLE = """
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import *

class G(JobGenerator):
    async def submit(self, batch): return []
    async def adopt(self, task, handle): return False
    def ended(self): raise NotImplementedError
    async def cancel(self, tags, *, grace_s=5.0): pass

class H(ErrorHandler):
    def __init__(self, limit=1): self.limit = limit
    def decide(self, failure): return None

def condition(text): return RunCondition(description=text)

"""


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on ``sys.path``: ``install("acme", plug="<source>")``; one module per plugin."""
    made: list[str] = []

    def install_distribution(
        distribution: str, *, metadata: str | None = None, points: str | None = None, **modules: str
    ) -> None:
        package = distribution.replace("-", "_")
        listing = ["[motoko.plugins]"]
        for name, source in modules.items():
            module = f"{package}_{name}"
            made.append(module)
            (tmp_path / f"{module}.py").write_text(PREAMBLE + textwrap.dedent(source))
            listing.append(f"{name} = {module}")
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        if metadata:
            (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(points or "\n".join(listing) + "\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install_distribution
    for module in made:
        sys.modules.pop(module, None)


def info_of(registry: PluginRegistry, name: str, distribution: str | None = None) -> PluginInfo:
    found = [p for p in registry.plugins if p.name == name and distribution in (None, p.distribution)]
    assert len(found) == 1
    return found[0]


def provides(hook: str, **things: str) -> str:
    """Write a providing hook: ``provides("generators", slurm="G")``."""
    return (
        f"@hookimpl\ndef motoko_{hook}(): return {{{', '.join(f'{k!r}: {v}' for k, v in things.items())}}}\n"
    )
