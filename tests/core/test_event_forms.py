"""Which plugin makes a condition of what a user passed as ``event=``."""

from __future__ import annotations

import importlib
import importlib.metadata

import pytest

from motoko_core.errors import ConfigError, PluginError
from motoko_core.interfaces import RunCondition
from motoko_core.plugins import load_plugins
from tests.core.conftest import Install, info_of


def form(answer: str = "condition(__name__)", marker: str = "") -> str:
    return f"@hookimpl{marker}\ndef motoko_condition_from_event(event, event_name): return {answer}\n"


def test_a_condition_is_passed_through(install: Install) -> None:
    install("acme", plug=form())
    mine = RunCondition(description="mine")
    assert load_plugins().condition_from_event(mine, "go") is mine


def test_third_parties_are_asked_before_built_ins(install: Install) -> None:
    install("zebra", plug=form("condition('z ' + event_name) if event == 'state = A' else None"))
    registry = load_plugins()
    assert registry.condition_from_event("state = A", "go").description == "z go"
    assert registry.condition_from_event("state = B", "go").description == '"state = B"'


def test_third_parties_are_asked_in_the_order_of_their_names(install: Install) -> None:
    install("bolt", plug=form())
    install("acme", b=form(), a=form())
    assert load_plugins().condition_from_event("x", "go").description == "acme_a"


def test_tryfirst_and_trylast_count_among_third_parties(install: Install) -> None:
    install("acme", a=form(marker="(trylast=True)"), b=form())
    install("bolt", c=form(marker="(tryfirst=True)"))
    assert load_plugins().condition_from_event("x", "go").description == "bolt_c"
    assert load_plugins(block=["c"]).condition_from_event("x", "go").description == "acme_b"
    # Last, but still before the built-ins.
    assert load_plugins(block=["b", "c"]).condition_from_event("x", "go").description == "acme_a"


def test_tryfirst_of_a_built_in_does_not_overtake_third_parties(install: Install) -> None:
    # As long as no built-in asks for it, a distribution that calls itself Motoko stands in for one.
    install("acme", a=form("condition('third') if event == 1 else None"))
    install("motoko", x=form("condition('x')", "(tryfirst=True)"), w=form("condition('w')"))
    points = [p for p in importlib.metadata.entry_points(group="motoko.plugins") if p.name in "axw"]
    registry = load_plugins(entry_points=points)
    assert info_of(registry, "x").builtin
    assert registry.condition_from_event(1, "go").description == "third"
    assert registry.condition_from_event(2, "go").description == "x"


def test_a_wrapper_sees_the_answers_of_built_ins(install: Install) -> None:
    install(
        "acme",
        plug="""
import attrs
@hookimpl(wrapper=True)
def motoko_condition_from_event():
    found = yield
    return attrs.evolve(found, description="wrapped " + found.description)
""",
    )
    registry = load_plugins()
    assert registry.condition_from_event("state = A", "go").description == 'wrapped "state = A"'
    assert info_of(registry, "plug").provides == {}


@pytest.mark.parametrize(
    ("event", "given"),
    [
        (3, "event=3 (int)"),
        (None, "event=None (NoneType)"),
        (lambda one, two: True, "(function with the signature (one, two))"),
        (dict, "(type)"),
    ],
)
def test_an_unknown_form_shows_what_was_given_and_what_exists(
    install: Install, event: object, given: str
) -> None:
    install("acme", plug='@hookimpl\ndef motoko_condition_from_event():\n    """a phase of the moon"""\n')
    with pytest.raises(ConfigError) as caught:
        load_plugins().condition_from_event(event, "go")
    assert not isinstance(caught.value, PluginError)
    text = str(caught.value)
    assert text.startswith("action 'go': ")
    assert given in text
    assert "plug: a phase of the moon" in text
    assert "run_filter: a function with the parameters (run, job)" in text


def test_a_form_that_answers_something_else_is_named(install: Install) -> None:
    install("acme", a=form("None"), b=form("True"))
    with pytest.raises(PluginError, match=r"plugin 'b' of acme 1\.0 .* answered True"):
        load_plugins().condition_from_event("x", "go")


def test_a_form_that_refuses_is_not_taken_for_the_one_that_breaks(install: Install) -> None:
    install(
        "acme",
        a="from motoko_core.errors import ConfigError\n"
        "@hookimpl\ndef motoko_condition_from_event(): raise ConfigError('odd')\n",
        b=form("True", "(tryfirst=True)"),
    )
    with pytest.raises(PluginError, match="plugin 'b' of acme"):
        load_plugins().condition_from_event("x", "go")


def test_a_form_that_breaks_is_named(install: Install) -> None:
    install("acme", a=form("None"), b=form("1 / 0"))
    with pytest.raises(PluginError, match=r"plugin 'b' of acme 1\.0 .*ZeroDivisionError") as caught:
        load_plugins().condition_from_event("x", "go")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_form_may_refuse_with_an_error_of_its_own() -> None:
    with pytest.raises(ConfigError, match="without content"):
        load_plugins().condition_from_event("", "go")
