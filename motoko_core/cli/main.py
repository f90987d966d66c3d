# PYTHON_ARGCOMPLETE_OK
"""The ``motoko`` command."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from motoko_core.cli import (
    cancel,
    clean,
    completion,
    create,
    info,
    init,
    kill,
    launcher,
    logs,
    orchestrator,
    pack,
    plugins,
    results,
    run,
    servers,
)
from motoko_core.cli.output import flush_stdout, log_lines, occupy_closed_streams, report, say, settle_stdout
from motoko_core.cli.parser import ArgumentParser, add_verbose
from motoko_core.interfaces import CliCommand

#: In the order of their use.
COMMANDS: tuple[CliCommand, ...] = (
    init.COMMAND,
    run.COMMAND,
    create.COMMAND,
    launcher.COMMAND,
    orchestrator.COMMAND,
    info.COMMAND,
    logs.COMMAND,
    results.COMMAND,
    cancel.COMMAND,
    clean.COMMAND,
    kill.COMMAND,
    servers.COMMAND,
    pack.COMMAND,
    plugins.COMMAND,
)
#: Commands that go on for long, and tell what they do meanwhile.
_TALKATIVE = frozenset({"run", "launcher", "orchestrator"})


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        say(f"motoko {version('motoko')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Execute one command; answer its exit code.

    :param argv: the words behind ``motoko``; None: those of the process.
    :raises SystemExit: what argparse does for ``--help``, ``--version`` and arguments that cannot be.
    """
    to_complete = completion.words()
    words = list(sys.argv[1:] if argv is None else argv) if to_complete is None else to_complete
    if argv is None:
        occupy_closed_streams()
    own = words[: words.index("--")] if "--" in words else words
    verbose = "--verbose" in own
    directory, name = _peek(words)
    level = logging.DEBUG if verbose else logging.INFO if name in _TALKATIVE else logging.WARNING
    try:
        with log_lines(level):
            flush_stdout()  # if it is closed, that is said before anything is done
            commands = _commands(name, directory)
            parser = make_parser(commands, directory)
            if to_complete is not None:
                completion.complete(parser, to_complete)
            try:
                args = parser.parse_args(words)
            except SystemExit:
                flush_stdout()
                raise
            args.motoko_directory = directory
            code: int = args.motoko_run(args)
            flush_stdout()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a message for the user, not a traceback
        settle_stdout()
        code = report(error, verbose=verbose)
    return code


def make_parser(commands: Iterable[CliCommand], directory: Path | None) -> ArgumentParser:
    """The parser of ``motoko``, with a sub-parser per command that fills itself when it is used."""
    parser = ArgumentParser(
        prog="motoko",
        description="Event-driven workflows of parametric studies.",
        epilog="`motoko COMMAND --help` tells more. Every long option may be written with - or with _.",
    )
    parser.add_argument("--verbose", action="store_true", help="say more; show tracebacks")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "-C",
        dest="motoko_directory",
        metavar="DIR",
        help="the workflow's directory (default: the current one, or the next above it with a motoko.yaml)",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in commands:

        def fill(own: ArgumentParser, command: CliCommand = command) -> None:
            add_verbose(own)
            own.set_defaults(motoko_run=command.run)
            command.configure(own)

        subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            fill=fill,
            workflow_directory=directory,
        )
    return parser


def _peek(words: Sequence[str]) -> tuple[Path | None, str | None]:
    """What ``-C`` says, and which command is given, before there is a parser."""
    directory = None
    rest = iter(words)
    for word in rest:
        if word == "-C":
            directory = next(rest, None)
        elif word.startswith("-C"):
            directory = word[2:].removeprefix("=")
        elif not word.startswith("-"):
            return (Path(directory) if directory else None), word
    return (Path(directory) if directory else None), None


def _commands(name: str | None, directory: Path | None) -> list[CliCommand]:
    """The built-in commands; those of plugins too, where they matter: importing them takes its time."""
    builtin = list(COMMANDS)
    if any(command.name == name for command in builtin):
        return builtin
    taken = {command.name for command in builtin}
    return [*builtin, *(c for c in plugins.commands(directory) if c.name not in taken)]


if __name__ == "__main__":
    sys.exit(main())
