"""The grammar of constraints: from text to a tree that knows no entry and no type yet.

Private to :mod:`motoko_core.study.constraints`, which looks the names up and converts the values.

The grammar decides every alternative at its first token and then commits to it (pyparsing's ``-``).
Therefore an error points at the place where reading stopped, and nesting costs linear time, which
``pyparsing.infix_notation`` without its process-wide packrat cache does not give.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import attrs
import pyparsing as pp

from motoko_core.errors import ConstraintError


@attrs.frozen
class Operand:
    """The right-hand side of a comparison, as written; ``at`` is its offset in the text."""

    text: str
    at: int
    quoted: bool


@attrs.frozen
class Comparison:
    """``name operator operand``; ``in`` and ``not in`` have one operand or more."""

    name: str
    at: int
    operator: str
    operands: tuple[Operand, ...]


@attrs.frozen
class Negation:
    """``not part``."""

    part: Syntax


@attrs.frozen
class Junction:
    """Two parts or more, all joined by ``and`` (also written ``,``), or all joined by ``or``."""

    word: Literal["and", "or"]
    parts: tuple[Syntax, ...]


Syntax: TypeAlias = Comparison | Negation | Junction

# What an error says was expected. When no alternative fits, pyparsing up to 3.2.1 names the first of them,
# later releases the whole: both have the same name here.
_COMPARISON = "a comparison such as state = FINISHED"
_VALUE = "a value"
_OPERATOR = "an operator (= != < > <= >= ~ !~ ~* !~*, in, not in)"
_HINT = "A constraint reads like: state = FINISHED and (runs.id < 3 or jobs.x in (1, 2)). Quote odd values."

NAME = re.compile(r"\w+(?:\s*\.\s*\w+)*")

# A value without quotes is a row of words. `and` and `or` end it wherever they stand as words, and so
# does a word that begins like an operator: without that, `state = A x > 3` would be the value "A x > 3",
# which no state ever has, instead of a missing comma.
_NOT_A_CONNECTIVE = r"(?!(?:and|or)(?:[\s()]|$))"
_WORD = r"(?:[^\s,()\[\]{}\\]|\\[()\[\]{}]?)+"


def constraint_error(problem: str, text: str, at: int, hint: str | None = None) -> ConstraintError:
    """Return the error about ``text``, a caret under offset ``at``; of a long text, the part there."""
    line = re.sub(r"\s", " ", text)  # one line of the same length, so that the caret is in place
    start = max(0, at - 50)
    lead = "..." if start else ""
    tail = "..." if at + 50 < len(line) else ""
    excerpt = f"{lead}{line[start : at + 50]}{tail}"
    caret = " " * (len(lead) + at - start) + "^"
    return ConstraintError(f"{problem}, at column {at + 1} of\n    {excerpt}\n    {caret}", hint=hint)


def read(text: str) -> Syntax:
    """Return the tree of a constraint that is not blank.

    :raises ConstraintError: naming the column and what was expected there.
    :raises RecursionError: when the parentheses nest too deeply; the caller has more recursion to guard.
    """
    try:
        tree: Syntax = _grammar().parse_string(text, parse_all=False)[0]
    except pp.ParseBaseException as error:
        if text[error.loc : error.loc + 1] in ("'", '"') and error.msg.endswith(_VALUE):
            problem, hint = "the quote is not closed", f"A {text[error.loc]} inside a value is written twice."
        else:
            problem, hint = error.msg.replace("Expected", "expected") or "reading stops", _HINT
        raise constraint_error(problem, text, error.loc, hint) from None
    return tree


@functools.cache
def _grammar() -> pp.ParserElement:
    """Build the grammar: at first use, for it takes milliseconds, and only once."""

    def keyword(word: str) -> pp.ParserElement:
        return pp.Suppress(pp.CaselessKeyword(word))

    def mark(character: str) -> pp.ParserElement:
        return pp.Suppress(pp.Literal(character).set_name(f"'{character}'"))

    def quoted_string() -> pp.ParserElement:
        # Backslashes stay as they are: they belong to regular expressions and paths.
        # The action sits on the strings, because an alternative of them does not skip blanks beforehand.
        def style(quote: str) -> pp.ParserElement:
            string = pp.QuotedString(
                quote, esc_quote=quote * 2, multiline=True, convert_whitespace_escapes=False
            )
            return string.set_name(_VALUE).set_parse_action(_operand(quoted=True))

        return style("'") | style('"')

    word = pp.Regex(rf"{_NOT_A_CONNECTIVE}(?![=<>!~]){_WORD}", re.IGNORECASE)
    first_word = pp.Regex(rf"""{_NOT_A_CONNECTIVE}(?![=<>!~'"]){_WORD}""", re.IGNORECASE)
    inner_word = pp.Regex(rf"{_NOT_A_CONNECTIVE}{_WORD}", re.IGNORECASE)
    # Brackets inside a value come in pairs, and those of a list hold commas: `state ~ ^(A|B)$`,
    # `jobs.sizes = [1, 2]`.
    brackets, literals = pp.Forward(), pp.Forward()
    listed = pp.ZeroOrMore(quoted_string() | inner_word | literals | ",")
    lists = mark("[") - listed - mark("]") | mark("{") - listed - mark("}")
    literals <<= lists | mark("(") - listed - mark(")")
    brackets <<= lists | mark("(") - pp.ZeroOrMore(inner_word | brackets) - mark(")")

    def value(first: pp.ParserElement) -> pp.ParserElement:
        unquoted = pp.original_text_for(first + pp.ZeroOrMore(word | brackets))
        unquoted.add_parse_action(_operand(quoted=False))
        return (quoted_string() | unquoted).set_name(_VALUE)

    # `state = (A or B)` is a slip for `in (A, B)`, and never a value. A pattern may begin with "(".
    plain_value = value(first_word | lists)
    pattern = value(first_word | brackets)
    values = mark("(") - plain_value + pp.ZeroOrMore(mark(",") - plain_value) - mark(")")

    def condition(operator: str, right: pp.ParserElement) -> pp.ParserElement:
        token = pp.Regex(operator, re.IGNORECASE).set_name(_OPERATOR)
        token.set_parse_action(lambda s, at, found: " ".join(found[0].lower().split()))
        return token - right

    name = pp.Regex(rf"(?!(?:and|or|not|in)\b(?!\s*\.)){NAME.pattern}", re.IGNORECASE)
    name.set_name(_COMPARISON)
    test = (
        condition(r"!?~\*?", pattern)
        | condition(r"==|[!<>]=|[=<>]", plain_value)
        | condition(r"(?:not\s+)?in\b", values)
    )
    comparison = name - test.set_name(_OPERATOR)
    comparison.set_parse_action(lambda s, at, found: Comparison(found[0], at, found[1], tuple(found[2:])))

    anything = pp.Forward()
    single = (comparison | mark("(") - anything - mark(")")).set_name(_COMPARISON)
    # `not` is counted instead of nested, so that a long row of them is no recursion.
    negated = pp.ZeroOrMore(pp.CaselessKeyword("not")) + single
    negated.set_parse_action(lambda s, at, found: found[-1] if len(found) % 2 else Negation(found[-1]))
    conjunction = negated + pp.ZeroOrMore((mark(",") | keyword("and")) - negated)
    conjunction.set_parse_action(_junction("and"))
    anything <<= conjunction + pp.ZeroOrMore(keyword("or") - conjunction)
    anything.set_parse_action(_junction("or"))
    end = pp.StringEnd().set_name("'and', 'or', ',' or the end")
    # Tabs are kept, because offsets into the text must be right. streamline() is the one part of
    # parsing that changes the grammar: done here, threads may share it.
    grammar = (anything + end).parse_with_tabs()
    return grammar.streamline()


# All parse actions take three arguments: pyparsing finds out by trial how many an action takes, and this
# is its first guess, so that no state of the trial is shared between threads.
_Action: TypeAlias = Callable[[str, int, pp.ParseResults], Any]


def _operand(*, quoted: bool) -> _Action:
    return lambda s, at, found: Operand(found[0], at, quoted)


def _junction(word: Literal["and", "or"]) -> _Action:
    return lambda s, at, found: found[0] if len(found) == 1 else Junction(word, tuple(found))
