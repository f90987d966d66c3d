"""The generator of docs/examples/plugin-generator, installed as a distribution of its own."""

from __future__ import annotations

import configparser
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from motoko_core.testing import GeneratorConformance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "plugin-generator"


def install(site: Path) -> None:
    """Put the example into a directory as an installer does."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "motoko_nice.py", site)
    info = site / f"motoko_nice-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata)
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (info / "entry_points.txt").open("w") as file:
        points.write(file)


class TestNice(GeneratorConformance):
    generator = "nice"
    options: ClassVar[Mapping[str, Any]] = {"slots": 8, "poll_interval_s": 0.05}
    many: ClassVar[int] = 50  # it is an example; one process after the other is enough for it

    # The launcher's part is tried with the generators that come with Motoko.
    test_a_launcher_that_dies_is_continued = None
    test_a_launcher_that_dies_again_and_again = None

    @pytest.fixture(scope="class")
    @classmethod
    def scheduler(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        site = tmp_path_factory.mktemp("site")
        install(site)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(site))
            yield
        sys.modules.pop("motoko_nice", None)
