"""File systems that are full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoko_core.daemons import wait_until


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few kilobytes."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    words = [mount or "mount", "-t", "tmpfs", "-o", "size=16k,nr_inodes=8", "none", str(place)]
    if mount is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    # (What was executed there may take a moment to end.)
    words = ["umount", str(place)]
    assert wait_until(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0, 60)


def fill(directory: Path) -> None:
    with (directory / "big").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"0" * 1024)
            except OSError:
                return
