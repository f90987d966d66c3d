"""Discovery, precedence and look-up, with distributions that really are on ``sys.path``."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError, PluginError
from motoko_core.interfaces import Condition, ErrorHandler, JobGenerator, RunCondition
from motoko_core.plugins import PluginInfo, PluginRegistry, load_plugins

PREAMBLE = """
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import *

class G(JobGenerator):
    async def submit(self, batch): return []
    async def adopt(self, task, handle): return False
    def ended(self): raise NotImplementedError
    async def cancel(self, tags, *, grace_s=5.0): pass

class H(ErrorHandler):
    def __init__(self, limit=1): self.limit = limit
    def decide(self, failure): return None

def condition(text): return RunCondition(description=text)

"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on ``sys.path``: ``install("acme", plug="<source>")``; one module per plugin."""
    made: list[str] = []

    def install_distribution(
        distribution: str, *, metadata: str | None = None, points: str | None = None, **modules: str
    ) -> None:
        package = distribution.replace("-", "_")
        listing = ["[motoko.plugins]"]
        for name, source in modules.items():
            module = f"{package}_{name}"
            made.append(module)
            (tmp_path / f"{module}.py").write_text(PREAMBLE + textwrap.dedent(source))
            listing.append(f"{name} = {module}")
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        if metadata:
            (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(points or "\n".join(listing) + "\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install_distribution
    for module in made:
        sys.modules.pop(module, None)


def info_of(registry: PluginRegistry, name: str, distribution: str | None = None) -> PluginInfo:
    found = [p for p in registry.plugins if p.name == name and distribution in (None, p.distribution)]
    assert len(found) == 1
    return found[0]


def provides(hook: str, **things: str) -> str:
    """Write a providing hook: ``provides("generators", slurm="G")``."""
    return (
        f"@hookimpl\ndef motoko_{hook}(): return {{{', '.join(f'{k!r}: {v}' for k, v in things.items())}}}\n"
    )


# --------------------------------------------------------------------------- what is found


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


def test_importing_the_module_loads_no_plugin() -> None:
    code = (
        "import sys, motoko_core.plugins; sys.exit(any(m.startswith('motoko_plugins') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


# --------------------------------------------------------------------------- precedence


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


# --------------------------------------------------------------------------- forms of events


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


def test_two_registries_do_not_share_anything(install: Install) -> None:
    install("acme", plug=provides("generators", sled="G"))
    with_it, without = load_plugins(), load_plugins(block=["acme"])
    with_it.generator("sled")
    with pytest.raises(PluginError):
        without.generator("sled")
    assert isinstance(without.condition("idle"), Condition)
