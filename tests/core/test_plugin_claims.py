"""Who provides a name that several plugins claim, and what motoko.yaml prefers and blocks."""

from __future__ import annotations

import sys

import pytest

from motoko_core.errors import ConfigError, PluginError
from motoko_core.plugins import load_plugins
from tests.core.conftest import Install, info_of, provides


def test_a_third_party_beats_the_built_in(install: Install) -> None:
    install("acme", plug=provides("error_handlers", retry="H"))
    registry = load_plugins()
    assert type(registry.error_handler("retry")).__module__ == "acme_plug"
    assert info_of(registry, "plug").overrides == ["error_handlers.retry"]
    assert info_of(registry, "retry").overrides == []


def test_the_built_in_can_be_preferred(install: Install) -> None:
    install("acme", plug=provides("error_handlers", retry="H"))
    registry = load_plugins(prefer={"error_handlers.retry": "motoko"})
    assert type(registry.error_handler("retry")).__module__ == "motoko_plugins.error_handlers.retry"
    assert info_of(registry, "retry").overrides == ["error_handlers.retry"]
    assert info_of(registry, "plug").overrides == []


def test_two_third_parties_with_one_name_are_refused(install: Install) -> None:
    install("acme", one=provides("generators", sled="G"))
    install("bolt-on", two=provides("generators", sled="G"))
    with pytest.raises(PluginError) as caught:
        load_plugins()
    text = str(caught.value)
    assert "generators.sled is claimed by plugin 'one' of acme 1.0 and by plugin 'two' of bolt-on 1.0" in text
    assert "plugins: {prefer: {generators.sled: acme}}" in text
    assert "bolt-on" in text


@pytest.mark.parametrize("spelling", ["bolt-on", "Bolt_On"])
def test_prefer_settles_it(install: Install, spelling: str) -> None:
    install("acme", one=provides("generators", sled="G"))
    install("bolt-on", two=provides("generators", sled="G"))
    registry = load_plugins(prefer={"generators.sled": spelling})
    assert registry.generator("sled").__module__ == "bolt_on_two"
    assert info_of(registry, "two").overrides == ["generators.sled"]


def test_two_commands_of_one_name_are_refused(install: Install) -> None:
    command = (
        "@hookimpl\ndef motoko_cli_commands():"
        " return [CliCommand(name='x', help=__name__, configure=print, run=print)]"
    )
    install("acme", one=command)
    install("bolt", two=command)
    with pytest.raises(PluginError, match=r"cli_commands\.x is claimed"):
        load_plugins()
    assert [c.help for c in load_plugins(prefer={"cli_commands.x": "bolt"}).cli_commands()] == ["bolt_two"]


def test_two_claims_in_one_distribution_are_settled_by_blocking(install: Install) -> None:
    install("acme", one=provides("generators", sled="G"), two=provides("generators", sled="G"))
    with pytest.raises(PluginError, match=r"plugins: \{block: \[one\]\}"):
        load_plugins()
    assert load_plugins(block=["one"]).generator("sled").__module__ == "acme_two"


@pytest.mark.parametrize(
    ("prefer", "message"),
    [
        ({"generator.sled": "acme"}, "Did you mean 'generators'"),
        ({"sled": "acme"}, "'sled' is not a kind, a dot and a name"),
        ({"generators.": "acme"}, "not a kind, a dot and a name"),
        ({"generators.sled": "acmee"}, "Did you mean 'acme'"),
        ({"generators.sledge": "acme"}, "Did you mean 'generators.sled'"),
        ({"generators.sled": "bolt"}, "bolt does not provide generators.sled"),
    ],
)
def test_a_misspelt_preference_is_refused(install: Install, prefer: dict[str, str], message: str) -> None:
    install("acme", one=provides("generators", sled="G"))
    install("bolt", two=provides("generators", cart="G"))
    with pytest.raises(PluginError) as caught:
        load_plugins(prefer=prefer)
    assert message in str(caught.value)


def test_preferring_a_plugin_that_is_left_out_falls_back(install: Install) -> None:
    install("acme", one=provides("generators", sled="G"))
    install("bolt", two="raise ValueError")
    registry = load_plugins(prefer={"generators.sled": "bolt"})
    assert registry.generator("sled").__module__ == "acme_one"


@pytest.mark.parametrize("name", ["one", "acme-tools", "Acme.Tools"])
def test_a_blocked_plugin_is_not_even_imported(
    install: Install, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    install("acme-tools", one="raise ValueError")
    registry = load_plugins(block=[name])
    assert info_of(registry, "one").left_out == "blocked in motoko.yaml"
    assert "acme_tools_one" not in sys.modules
    assert "acme" not in caplog.text


def test_a_built_in_can_be_blocked() -> None:
    registry = load_plugins(block=["constraint"])
    with pytest.raises(ConfigError, match="none of the forms"):
        registry.condition_from_event("state = FINISHED", "go")


def test_an_unknown_name_in_block_is_refused() -> None:
    with pytest.raises(PluginError, match="Did you mean 'retry'"):
        load_plugins(block=["rerty"])
