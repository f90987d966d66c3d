"""Which plugins are found, what they offer, and what is said about a broken one."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from importlib.metadata import EntryPoint

import pytest

from motoko_core.errors import PluginError
from motoko_core.interfaces import ErrorHandler, JobGenerator
from motoko_core.plugins import PluginInfo, load_plugins
from tests.core.conftest import Install, info_of, provides


def test_built_ins_come_through_the_entry_points_of_the_motoko_distribution() -> None:
    registry = load_plugins()
    info = info_of(registry, "named", "motoko")
    assert info.builtin
    assert info.version == importlib.metadata.version("motoko")
    assert info.provides == {
        "conditions": ["all_finished", "every", "file_exists", "idle"],
        "actions": ["create_tasks", "finish"],
    }
    assert info.overrides == []
    assert info.left_out is None
    assert info_of(registry, "run_filter").provides == {"condition_forms": ["run_filter"]}


def test_a_third_party_plugin_provides_every_kind(install: Install) -> None:
    install(
        "acme",
        plug=provides("conditions", moon="lambda phase='full': condition(phase)")
        + provides("actions", howl="lambda: print")
        + provides("generators", sled="G")
        + provides("error_handlers", bark="H")
        + """
@hookimpl
def motoko_cli_commands(): return [CliCommand(name="sniff", help="", configure=print, run=print)]
@hookimpl
def motoko_condition_from_event(event): return condition("seven") if event == 7 else None
@hookimpl
def motoko_event_fired(firing): pass
""",
    )
    registry = load_plugins()
    info = info_of(registry, "plug")
    assert (info.distribution, info.version, info.builtin) == ("acme", "1.0", False)
    assert info.provides == {
        "conditions": ["moon"],
        "actions": ["howl"],
        "generators": ["sled"],
        "error_handlers": ["bark"],
        "cli_commands": ["sniff"],
        "condition_forms": ["plug"],
        "observers": ["motoko_event_fired"],
    }
    assert registry.condition("moon").description == "full"
    assert registry.condition("moon", phase="new").description == "new"
    assert registry.action("howl") is print
    assert issubclass(registry.generator("sled"), JobGenerator)
    assert isinstance(registry.error_handler("bark", limit=3), ErrorHandler)
    assert [c.name for c in registry.cli_commands()] == ["sniff"]
    assert registry.condition_from_event(7, "go").description == "seven"


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    install(
        "acme",
        plug="",
        points="[motoko.plugins]\nobject = acme_plug:plugin\n",
    )
    module = importlib.import_module("acme_plug")
    exec(
        "class P:\n  @hookimpl\n  def motoko_generators(self): return {'sled': G}\nplugin = P()",
        module.__dict__,
    )
    assert info_of(load_plugins(), "object").provides == {"generators": ["sled"]}


def test_one_entry_point_name_in_two_distributions(install: Install) -> None:
    install("acme", plug=provides("generators", sled="G"))
    install("bolt", plug=provides("generators", cart="G"))
    registry = load_plugins()
    assert info_of(registry, "plug", "acme").left_out is None
    assert info_of(registry, "plug", "bolt").left_out is None
    assert registry.generator("sled") is not registry.generator("cart")


def test_the_order_does_not_depend_on_discovery(install: Install) -> None:
    install("zebra", b=provides("generators", b="G"), a=provides("generators", a="G"))
    install("acme", z=provides("generators", z="G"))
    points = list(importlib.metadata.entry_points(group="motoko.plugins"))
    one = load_plugins(entry_points=points).plugins
    other = load_plugins(entry_points=reversed(points)).plugins
    assert [str(p) for p in one] == [str(p) for p in other]
    assert [(p.distribution, p.name) for p in one[:3]] == [("acme", "z"), ("zebra", "a"), ("zebra", "b")]
    assert all(p.builtin for p in one[3:])


@pytest.mark.parametrize("metadata", ["", "Metadata-Version: 2.1\nVersion: 1.0\n"])
def test_a_distribution_without_a_name_is_called_by_its_package(install: Install, metadata: str) -> None:
    install("acme", metadata=metadata, plug=provides("generators", sled="G"))
    registry = load_plugins()
    assert info_of(registry, "plug").distribution == "acme_plug"
    assert not info_of(registry, "plug").builtin
    registry.generator("sled")


def test_an_entry_point_without_a_distribution() -> None:
    point = EntryPoint("mine", "motoko_plugins.error_handlers.abort", "motoko.plugins")
    registry = load_plugins(entry_points=[point])
    assert registry.plugins == [
        PluginInfo("mine", "motoko_plugins", "", builtin=False, provides={"error_handlers": ["abort"]})
    ]


def test_no_plugins_at_all() -> None:
    registry = load_plugins(entry_points=[])
    assert registry.plugins == []
    assert registry.cli_commands() == []
    with pytest.raises(PluginError, match="none to choose from"):
        registry.generator("bash")


# --------------------------------------------------------------------------- broken plugins


BROKEN = {
    "raises": ("raise ValueError('no licence')", "ValueError: no licence"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "lacks": ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
    "syntax": ("def (", "SyntaxError"),
    "unknown": ("@hookimpl\ndef motoko_generator(): return {}", "Did you mean 'motoko_generators'?"),
    "arguments": ("@hookimpl\ndef motoko_event_fired(fired): pass", "{'fired'} are declared"),
    "unmarked": ("def motoko_generators(): return {}", "is @hookimpl missing?"),
    "coroutine": ("@hookimpl\nasync def motoko_event_fired(): pass", "not a coroutine function"),
    "hook_raises": ("@hookimpl\ndef motoko_actions(): 1 / 0", "ZeroDivisionError"),
    "hook_exits": ("@hookimpl\ndef motoko_actions(): raise SystemExit", "SystemExit"),
    "none": ("@hookimpl\ndef motoko_actions(): pass", "motoko_actions returns None"),
    "no_mapping": ("@hookimpl\ndef motoko_conditions(): return ['x']", "not a mapping"),
    "name": ("@hookimpl\ndef motoko_actions(): return {1: print}", "1 for a name"),
    "blank": (provides("actions").replace("{}", "{' ': print}"), "' ' for a name"),
    "value": (provides("generators", sled="'G'"), "'G' under 'sled'"),
    "no_list": ("@hookimpl\ndef motoko_cli_commands(): return {}", "not a list of CliCommand"),
    "no_command": ("@hookimpl\ndef motoko_cli_commands(): return ['x']", "not a list of CliCommand"),
    "twice": (
        "c = CliCommand(name='x', help='', configure=print, run=print)\n"
        "@hookimpl\ndef motoko_cli_commands(): return [c, c]",
        "'x' twice",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_left_out(
    install: Install, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    source, reason = BROKEN[name]
    install("acme", broken=source, sound=provides("generators", sled="G"))
    registry = load_plugins()
    info = info_of(registry, "broken")
    assert info.left_out is not None
    assert reason in info.left_out
    assert "\n" not in info.left_out
    assert info.provides == {}
    warnings = [r for r in caplog.records if r.name == "motoko.plugins" and "'broken' of acme" in r.message]
    assert [r.levelno for r in warnings] == [logging.WARNING]
    assert reason in warnings[0].message
    registry.generator("sled")
    assert registry.condition_from_event("state = FINISHED", "go")


def test_a_broken_plugin_leaves_no_hook_behind(install: Install) -> None:
    install(
        "acme",
        plug="@hookimpl\ndef motoko_condition_from_event(event): return condition('mine')\n"
        "@hookimpl\ndef motoko_zzz(): pass\n",
    )
    registry = load_plugins()
    assert info_of(registry, "plug").left_out
    assert registry.condition_from_event("state = A", "go").description == '"state = A"'


def test_an_optional_hook_may_be_unknown(install: Install) -> None:
    install("acme", plug="@hookimpl(optionalhook=True)\ndef motoko_of_the_future(): pass\n")
    assert info_of(load_plugins(), "plug").left_out is None


@pytest.mark.parametrize("value", ["acme_plug:nothing", "not a module!"])
def test_an_entry_point_that_leads_nowhere_is_left_out(install: Install, value: str) -> None:
    install("acme", plug="", points=f"[motoko.plugins]\nplug = {value}\n")
    assert info_of(load_plugins(), "plug").left_out


def test_one_object_is_one_plugin(install: Install) -> None:
    install(
        "acme", plug=provides("generators", sled="G"), points="[motoko.plugins]\na=acme_plug\nb=acme_plug\n"
    )
    registry = load_plugins()
    assert info_of(registry, "a").left_out is None
    assert "plugin 'a' of acme 1.0 gives already" in (info_of(registry, "b").left_out or "")


def test_one_distribution_with_one_name_for_two_plugins(install: Install) -> None:
    install(
        "acme",
        one=provides("generators", sled="G"),
        two=provides("generators", cart="G"),
        points="[motoko.plugins]\nx=acme_one\nx=acme_two\n",
    )
    registry = load_plugins()
    left_out = [p.left_out for p in registry.plugins if p.name == "x"]
    assert left_out == [None, "acme lists two entry points of that name"]


def test_an_interrupt_during_import_is_not_swallowed(install: Install) -> None:
    install("acme", plug="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()
