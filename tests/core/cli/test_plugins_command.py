from __future__ import annotations

import json
import os
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from motoko_core.cli import completion
from motoko_core.cli.main import main
from tests.core.cli.conftest import MOTOKO_YAML, Tiny, command

Captured = pytest.CaptureFixture[str]


def test_plugins_outside_of_a_workflow(nowhere: Path, capsys: Captured) -> None:
    assert main(["plugins"]) == 0
    captured = capsys.readouterr()
    [line] = [line for line in captured.out.splitlines() if line.startswith("bash ")]
    assert "generators: bash" in line
    assert captured.err == ""


def test_plugins_follow_the_motoko_yaml_at_hand(tiny: Tiny, capsys: Captured) -> None:
    tiny.write(yaml=MOTOKO_YAML + "plugins: {block: [retry]}\n")
    assert main(["-C", str(tiny.path), "plugins", "--json"]) == 0
    found = {info["name"]: info for info in json.loads(capsys.readouterr().out)}
    assert found["retry"]["left_out"] == "blocked in motoko.yaml"
    assert found["bash"]["left_out"] is None
    assert main(["-C", str(tiny.path), "plugins"]) == 0
    assert "left out: blocked in motoko.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_name_that_two_distributions_claim(
    words: list[str], nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    source = (
        "from motoko_core.hookspecs import hookimpl\n"
        "@hookimpl\ndef motoko_generators(): return {'sled': object}\n"
    )
    for name in ("acme", "bolt"):
        metadata = nowhere / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[motoko.plugins]\n{name}_plug = claiming_{name}\n")
        (nowhere / f"claiming_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(nowhere)
    assert main(["plugins", *words]) == 2
    captured = capsys.readouterr()
    assert "generators.sled is claimed by plugin 'acme_plug' of acme 1.0 and by plugin" in captured.err
    if words:
        found = {info["name"]: info["contested"] for info in json.loads(captured.out)}
        assert found["acme_plug"] == found["bolt_plug"] == ["generators.sled"]
        assert found["bash"] == []
    else:
        assert captured.out.count("generators.sled is claimed by another plugin too") == 2
        assert "generators: bash" in captured.out


def test_a_misspelt_block_is_an_error(tiny: Tiny, capsys: Captured) -> None:
    tiny.write(yaml=MOTOKO_YAML + "plugins: {block: [rety]}\n")
    assert main(["-C", str(tiny.path), "plugins"]) == 2
    assert "'rety'" in capsys.readouterr().err


def test_plugins_of_a_directory_that_is_no_workflow(nowhere: Path, capsys: Captured) -> None:
    assert main(["-C", "there", "plugins"]) == 2
    assert "there is no motoko.yaml in there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("motoko cl", {"clean"}),
        ("motoko launcher --gen", {"--generator"}),
        ("motoko run --run-name a --co", {"--count"}),
        ("motoko orchestrator start --so", {"--some_text"}),
        ("motoko -C {path} kill --bd-study s", {"second"}),
    ],
)
def test_the_shell_completes_commands_options_and_values(tiny: Tiny, line: str, expected: set[str]) -> None:
    line = line.format(path=tiny.path)
    answer = tiny.path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(command(), cwd=tiny.path, env=environment, capture_output=True, check=False)
    assert {word.strip() for word in answer.read_text().splitlines()} == expected


def test_completion_of_studies_and_generators(
    tiny: Tiny, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completion.studies(Namespace(motoko_directory=tiny.path)) == ["all", "first", "second"]
    assert completion.studies(Namespace()) == ["all"]
    assert "bash" in completion.generators(Namespace())
