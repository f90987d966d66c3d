"""The argument parser of ``motoko`` and of all its commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Adds a command's arguments to its parser.
Fill = Callable[["ArgumentParser"], None]


class ArgumentParser(argparse.ArgumentParser):
    """A parser that knows every long option with ``-`` and with ``_``, and fills itself when it is used.

    Commands inherit the class. What they add is found in both spellings, whoever added it: ``--run_name``
    is ``--run-name``. The other spelling does not show in the help.

    :param fill: called once, before the first arguments are read or help is shown: only the command that
        was given pays for its arguments.
    :param workflow_directory: what ``-C`` said, for commands whose arguments depend on the workflow.
    """

    #: The words that the parser is about to read; ``fill`` may look at them, and take some away.
    words: list[str]

    def __init__(
        self,
        *args: Any,
        fill: Fill | None = None,
        workflow_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        # An option that a workflow has always had must not clash with one that Motoko got later.
        super().__init__(*args, **{"conflict_handler": "resolve", **kwargs})
        self._fill = fill
        self.workflow_directory = workflow_directory

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        fill, self._fill = self._fill, None
        if args is not None:
            self.words = list(args)
        if fill is not None:
            fill(self)
        self._add_other_spellings()
        return super().parse_known_args(None if args is None else self.words, namespace)

    def fill_ahead(self, words: Sequence[str]) -> None:
        """Fill this parser, and that of the command among ``words``, before they are used."""
        self.words = list(words)
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for place, word in enumerate(words):
                    if word in action.choices:
                        action.choices[word].fill_ahead(words[place + 1 :])
                        return

    def _add_other_spellings(self) -> None:
        known = self._option_string_actions
        for option, action in list(known.items()):
            if option.startswith("--"):
                for sign, other in (("_", "-"), ("-", "_")):
                    known.setdefault("--" + option[2:].replace(sign, other), action)

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        # --run stands for --run-name, and not for two options that are spelt alike.
        unique = {id(found[0]): found for found in reversed(super()._get_option_tuples(option_string))}
        return list(reversed(unique.values()))


def add_verbose(parser: argparse.ArgumentParser, help_text: str = "say more; show tracebacks") -> None:
    """Accept ``--verbose`` behind the command as well as before it."""
    parser.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=help_text)


def add_study(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--bd-study``."""
    action: Any = parser.add_argument(
        "--bd-study", "-bd", default="all", metavar="STUDY", help=f"{help_text} (default: all studies)"
    )
    from motoko_core.cli import completion

    action.completer = completion.studies


def add_generator(
    parser: argparse.ArgumentParser,
    help_text: str = "another job generator than motoko.yaml names",
    *,
    dest: str = "generator",
) -> None:
    """Add ``--generator``."""
    action: Any = parser.add_argument("--generator", dest=dest, metavar="G", help=help_text)
    from motoko_core.cli import completion

    action.completer = completion.generators


def has_positionals(parser: argparse.ArgumentParser) -> bool:
    """Whether a word without a dash would be taken for one of the parser's own arguments."""
    return any(not action.option_strings for action in parser._actions)
