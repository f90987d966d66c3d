from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from motoko_core.cli.parser import ArgumentParser, add_study, has_positionals


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="p")
    parser.add_argument("--run-name")
    parser.add_argument("--do_not_detach", action="store_true")
    return parser


@pytest.mark.parametrize("option", ["--run-name", "--run_name", "--run", "--run_n"])
def test_every_spelling_of_a_long_option_is_known(parser: ArgumentParser, option: str) -> None:
    assert parser.parse_args([option, "a"]).run_name == "a"
    assert parser.parse_args([f"{option}=a"]).run_name == "a"


@pytest.mark.parametrize("option", ["--do-not-detach", "--do_not_detach", "--do"])
def test_options_written_with_underscores_are_known_with_dashes(parser: ArgumentParser, option: str) -> None:
    assert parser.parse_args([option]).do_not_detach


def test_the_other_spelling_does_not_show_in_the_help(parser: ArgumentParser) -> None:
    parser.parse_args([])
    text = parser.format_help()
    assert "--run-name" in text
    assert "--run_name" not in text
    assert "--do-not-detach" not in text


def test_options_that_share_a_beginning_stay_ambiguous(
    parser: ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    parser.add_argument("--run-fast", action="store_true")
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(["--run", "a"])
    assert leaving.value.code == 2
    assert "ambiguous" in capsys.readouterr().err


def test_spellings_of_two_options_do_not_replace_each_other(parser: ArgumentParser) -> None:
    parser.add_argument("--run_name", dest="theirs")
    args = parser.parse_args(["--run_name", "a", "--run-name", "b"])
    assert (args.theirs, args.run_name) == ("a", "b")


def test_subparsers_know_every_spelling_too(parser: ArgumentParser) -> None:
    part = parser.add_subparsers(dest="what").add_parser("start")
    part.add_argument("--max_size", type=int)
    assert parser.parse_args(["start", "--max-size", "3"]).max_size == 3


def test_a_parser_is_filled_when_it_is_used_and_only_once(parser: ArgumentParser) -> None:
    filled: list[list[str]] = []

    def fill(own: ArgumentParser) -> None:
        filled.append(list(own.words))
        own.add_argument("--late")

    parts = parser.add_subparsers()
    parts.add_parser("used", fill=fill)
    parts.add_parser("unused", fill=lambda own: pytest.fail("it was not asked for"))
    assert parser.parse_args(["used", "--late", "1"]).late == "1"
    assert filled == [["--late", "1"]]


def test_filling_may_take_words_away(parser: ArgumentParser) -> None:
    parts = parser.add_subparsers()
    parts.add_parser("run", fill=lambda own: own.words.clear())
    parser.parse_args(["run", "what", "--ever"])


def test_a_later_option_replaces_an_earlier_one_of_the_same_name(parser: ArgumentParser) -> None:
    parser.add_argument("--verbose", dest="ours")
    parser.add_argument("--verbose", dest="theirs")
    assert parser.parse_args(["--verbose", "1"]).theirs == "1"


def test_study_option_has_both_spellings_of_motoko_0_1(parser: ArgumentParser) -> None:
    add_study(parser, "this one")
    assert parser.parse_args([]).bd_study == "all"
    assert parser.parse_args(["-bd", "mult"]).bd_study == "mult"
    assert parser.parse_args(["--bd_study", "mult"]).bd_study == "mult"


def test_positionals_are_told_from_options(parser: ArgumentParser) -> None:
    assert not has_positionals(parser)
    parser.add_argument("file", type=Path)
    assert has_positionals(parser)


def test_a_plain_parser_can_carry_the_common_options() -> None:
    plain = argparse.ArgumentParser()
    add_study(plain, "this one")
    assert plain.parse_args(["--bd-study", "a"]).bd_study == "a"
