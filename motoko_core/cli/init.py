"""``motoko init``: write a small workflow to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from motoko_core.cli.output import say
from motoko_core.errors import ConfigError
from motoko_core.interfaces import CliCommand

#: Python files of the template are no modules of ours: no tool shall import or check them as such.
_SUFFIX = ".txt"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="where (default: here)")
    parser.add_argument(
        "--force", action="store_true", help="also into a directory with files in it; no file is overwritten"
    )


def run(args: argparse.Namespace) -> int:
    target = Path(args.directory)
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file", hint="Name a directory; it is made if it does not exist.")
    texts = _texts()
    if target.is_dir() and any(target.iterdir()):
        if not args.force:
            raise ConfigError(
                f"the directory {target} is not empty",
                hint="Name another one, or pass --force; no file is overwritten then either.",
            )
        taken = [str(name) for name in texts if (target / name).exists()]
        if taken:
            raise ConfigError(f"{', '.join(taken)} in {target} would be overwritten", hint="Move them away.")
    for name, text in texts.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.suffix == ".sh":
            path.chmod(0o755)
    where = "" if target.resolve() == Path.cwd() else f"{target} "
    say(f"wrote {', '.join(map(str, texts))} into {target}")
    say(f"Try it: motoko run {where}--run-name first")
    return 0


def _texts() -> dict[Path, str]:
    template = Path(__file__).parent / "template"
    files = sorted(path for path in template.rglob("*" + _SUFFIX))
    return {path.relative_to(template).with_suffix(""): path.read_text() for path in files}


COMMAND = CliCommand(name="init", help="write a small workflow to start from", configure=configure, run=run)
