"""What the registry hands out under a name, and how it tells the observers."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError, PluginError
from motoko_core.interfaces import Condition
from motoko_core.plugins import PluginRegistry, load_plugins
from tests.core.conftest import Install, provides


def test_importing_the_module_loads_no_plugin() -> None:
    code = (
        "import sys, motoko_core.plugins; sys.exit(any(m.startswith('motoko_plugins') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_registries_do_not_share_anything(install: Install) -> None:
    install("acme", plug=provides("generators", sled="G"))
    with_it, without = load_plugins(), load_plugins(block=["acme"])
    with_it.generator("sled")
    with pytest.raises(PluginError):
        without.generator("sled")
    assert isinstance(without.condition("idle"), Condition)


# --------------------------------------------------------------------------- look-up


def test_an_unknown_name_shows_the_nearest(install: Install) -> None:
    install("acme", broken="raise ValueError('no licence')")
    registry = load_plugins()
    with pytest.raises(PluginError, match="there is no condition 'evry'") as caught:
        registry.condition("evry")
    assert "Did you mean 'every'" in str(caught.value)
    assert "Left out: plugin 'broken' of acme 1.0 (ValueError: no licence)" in str(caught.value)


@pytest.mark.parametrize("name", [None, 3, [], ""])
def test_a_name_that_cannot_be_one(name: Any) -> None:
    registry = load_plugins()
    for look_up in (registry.condition, registry.action, registry.error_handler, registry.generator):
        with pytest.raises(PluginError, match="there is no"):
            look_up(name)


def test_wrong_settings_show_the_accepted_ones() -> None:
    registry = load_plugins()
    with pytest.raises(ConfigError, match="tries") as caught:
        registry.error_handler("retry", tries=3)
    assert not isinstance(caught.value, PluginError)
    assert "It takes: max_attempts=3, delay_s=0.0, backoff=1.0, reasons=None." in str(caught.value)
    with pytest.raises(ConfigError, match="'path'"):
        registry.condition("file_exists")
    with pytest.raises(ConfigError, match="It takes no settings"):
        registry.condition("idle", task="add")


def test_a_wrong_value_is_reported_with_the_name() -> None:
    with pytest.raises(ConfigError, match="error handler 'retry': max_attempts = 0"):
        load_plugins().error_handler("retry", max_attempts=0)


def test_settings_may_have_any_name(install: Install) -> None:
    install("acme", plug=provides("conditions", x="lambda **k: condition(','.join(k))"))
    settings: dict[str, Any] = {"name": 1, "self": 2}
    assert load_plugins().condition("x", **settings).description == "name,self"


@pytest.mark.parametrize("error", ["ValueError", "TypeError"])
def test_a_factory_that_refuses_a_value_is_the_users_mistake(install: Install, error: str) -> None:
    install("acme", plug=f"def make(x): raise {error}('x is odd')\n" + provides("conditions", x="make"))
    with pytest.raises(ConfigError, match="condition 'x': x is odd") as caught:
        load_plugins().condition("x", x=1)
    assert not isinstance(caught.value, PluginError)
    assert caught.value.__cause__ is not None


def test_a_factory_that_breaks_is_the_plugins_mistake(install: Install) -> None:
    install("acme", plug="def make(): raise SystemExit(3)\n" + provides("conditions", x="make"))
    with pytest.raises(PluginError, match=r"plugin 'plug' of acme 1\.0 failed: SystemExit: 3"):
        load_plugins().condition("x")


@pytest.mark.parametrize(
    ("hook", "thing", "look_up"),
    [
        ("conditions", "lambda: 3", lambda r: r.condition("x")),
        ("actions", "lambda: 3", lambda r: r.action("x")),
        ("error_handlers", "lambda: 3", lambda r: r.error_handler("x")),
        ("error_handlers", "ErrorHandler", lambda r: r.error_handler("x")),
        ("generators", "dict", lambda r: r.generator("x")),
        ("generators", "lambda: G", lambda r: r.generator("x")),
        ("generators", "JobGenerator", lambda r: r.generator("x")),
    ],
)
def test_the_wrong_type_names_plugin_and_distribution(
    install: Install, hook: str, thing: str, look_up: Callable[[PluginRegistry], object]
) -> None:
    install("acme", plug=provides(hook, x=thing))
    registry = load_plugins()
    with pytest.raises(PluginError, match=r"plugin 'plug' of acme 1\.0"):
        look_up(registry)


def test_a_coat_and_its_plain_name_mean_the_same(install: Install) -> None:
    install("acme", plug=provides("generators", sled="G", cartCoat="G"))
    registry = load_plugins()
    assert registry.generator("sledCoat") is registry.generator("sled")
    assert registry.generator("cart") is registry.generator("cartCoat")
    with pytest.raises(PluginError, match="'boatCoat'"):
        registry.generator("boatCoat")


def test_a_coat_of_its_own_wins_over_the_plain_name(install: Install) -> None:
    install("acme", plug="class K(G): pass\n" + provides("generators", sled="G", sledCoat="K"))
    registry = load_plugins()
    assert registry.generator("sled").__name__ == "G"
    assert registry.generator("sledCoat").__name__ == "K"


# --------------------------------------------------------------------------- observers


SEEN = """
seen = []
@hookimpl
def motoko_workflow_finished(workflow, outcome): seen.append((workflow, outcome))
"""


@pytest.mark.parametrize("raising", ["raise ValueError('off air')", "raise SystemExit(3)"])
def test_an_observer_that_raises_is_logged_and_the_others_are_called(
    install: Install, caplog: pytest.LogCaptureFixture, raising: str
) -> None:
    install("acme", a=SEEN, b=f"@hookimpl\ndef motoko_workflow_finished(outcome): {raising}\n", c=SEEN)
    load_plugins().observe("motoko_workflow_finished", workflow="w", outcome="failed")
    for module in ("acme_a", "acme_c"):
        assert sys.modules[module].seen == [("w", "failed")]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.name == "motoko.plugins"
    assert "plugin 'b' of acme 1.0" in record.message
    assert record.exc_info
    assert raising.partition(" ")[2] in caplog.text  # the line in the traceback


def test_an_interrupt_in_an_observer_is_not_swallowed(install: Install) -> None:
    install("acme", a="@hookimpl\ndef motoko_workflow_started(): raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_plugins().observe("motoko_workflow_started", workflow=None)


def test_only_observer_hooks_can_be_observed() -> None:
    with pytest.raises(PluginError, match="Did you mean 'motoko_event_fired'"):
        load_plugins().observe("motoko_event_fire")


# --------------------------------------------------------------------------- generators by name


FROM_NAME = "@hookimpl\ndef motoko_generator_from_name(name, directory): "


def test_a_plugin_makes_a_generator_of_a_name_that_nobody_provides(install: Install, tmp_path: Path) -> None:
    install(
        "acme",
        plug=provides("generators", sled="G")
        + FROM_NAME
        + "return type(f'{name}{directory.name}', (G,), {}) if name in ('sled', 'cart') else None",
    )
    registry = load_plugins()
    assert registry.generator("cart", tmp_path).__name__ == f"cart{tmp_path.name}"
    assert registry.generator("sled", tmp_path).__name__ == "G"  # this one is provided
    for directory in (None, tmp_path):
        with pytest.raises(PluginError, match="there is no generator 'car'"):
            registry.generator("car", directory)
    with pytest.raises(PluginError, match="there is no generator 'cart'"):
        registry.generator("cart")


def test_a_third_party_is_asked_for_a_generator_before_the_built_ins(
    install: Install, tmp_path: Path
) -> None:
    (tmp_path / "cartCoat.py").write_text("def launch(run, params): ...\n")
    assert load_plugins().generator("cart", tmp_path).__name__ == "CartCoatGenerator"
    install("acme", plug=FROM_NAME + "return G")
    assert load_plugins().generator("cart", tmp_path).__name__ == "G"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1 / 0", "plugin 'plug' of acme 1.0 failed: ZeroDivisionError"),
        ("7", "gives 7, not a subclass"),
    ],
)
def test_a_plugin_that_spoils_the_name_of_a_generator_is_named(
    install: Install, tmp_path: Path, answer: str, message: str
) -> None:
    install("acme", plug=FROM_NAME + f"return {answer}")
    with pytest.raises(PluginError, match=message):
        load_plugins().generator("cart", tmp_path)
