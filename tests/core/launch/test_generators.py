"""Which job generator executes a task manager's runs, and with which options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from motoko_core.errors import ConfigError, PluginError
from motoko_core.interfaces import JobGenerator
from motoko_core.launch.generators import make_generator, make_settings, services
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import write_workflow

STUDIES = ("mult", "add")


def workflow(directory: Path, *, add: str = "", top: str = "") -> Workflow:
    """A workflow with settings (lines) of the task manager ``add``, and of the whole workflow."""
    lines = ["task_managers:", "  mult:", "  add:"]
    lines += [f"    {line}" for line in add.splitlines()]
    lines += ["orchestrator: orchestrator.main", *top.splitlines()]
    return Workflow(write_workflow(directory / "w", studies=STUDIES, yaml="\n".join(lines) + "\n"))


def made(workflow: Workflow, override: str | None = None) -> dict[str, Any]:
    found = services(workflow, list(workflow.task_managers.values()), override)
    return {manager.study: (service.generator, service.settings) for manager, service in found.items()}


@attrs.frozen(kw_only=True)
class Directives:
    """Options of a scheduler: the list as it is."""

    lines: Any = ()
    account: Any = attrs.field(default=None)

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> Directives:
        return cls(lines=tuple(strings))


KIND: Any = SimpleNamespace(Options=Directives)


def settings(workflow: Workflow, name: str = "x") -> Any:
    kind: type[JobGenerator] = KIND
    return make_settings(workflow, workflow.task_managers["add"], name, kind)


def test_task_managers_share_the_generator_of_one_name(tmp_path: Path) -> None:
    found = made(workflow(tmp_path, top="bash_options: [slots=3]"))
    generator, options = found["mult"]
    assert isinstance(generator, BashGenerator)
    assert found["add"][0] is generator
    assert options.slots == generator.options.slots == 3


def test_a_task_manager_names_another_generator(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="generator: bash", top="generator: nothing_like_this")
    add = opened.task_managers["add"]
    assert isinstance(services(opened, [add])[add].generator, BashGenerator)
    with pytest.raises(PluginError, match=r"motoko.yaml:6: generator: .*'nothing_like_this'"):
        made(opened)


def test_an_unknown_generator_of_a_task_manager_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"motoko.yaml:4: task_managers.add.generator: .*'bush'") as raised:
        made(workflow(tmp_path, add="generator: bush"))
    assert "'bash'" in str(raised.value)


def test_the_generator_of_the_command_line_is_for_all(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="generator: bush", top="bash_options: {slots: 3}")
    found = made(opened, "bashCoat")
    assert found["add"][0] is found["mult"][0]
    assert found["add"][0].options.slots == 3
    with pytest.raises(PluginError, match="'bush'") as raised:
        made(workflow(tmp_path), "bush")
    assert "motoko.yaml" not in str(raised.value)


def test_the_list_of_a_task_manager_comes_behind_the_workflows(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="x_options: [time=2:00]", top="x_options: [time=1:00, mem=1G]")
    assert settings(opened).lines == ("time=1:00", "mem=1G", "time=2:00")


def test_of_mappings_the_task_managers_settings_win(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="x_options: {account: me}", top="x_options: {account: us, lines: [a]}")
    assert settings(opened) == Directives(account="me", lines=["a"])


@pytest.mark.parametrize(("add", "top"), [("[a]", ""), ("[a]", "x_options:"), ("[a]", "x_options: {}")])
def test_options_of_a_task_manager_alone(tmp_path: Path, add: str, top: str) -> None:
    assert settings(workflow(tmp_path, add=f"x_options: {add}", top=top)).lines == ("a",)


def test_without_options_of_its_own_a_task_manager_has_the_workflows(tmp_path: Path) -> None:
    assert settings(workflow(tmp_path, add="x_options:", top="x_options: {lines: [a]}")).lines == ["a"]


def test_a_list_and_a_mapping_cannot_be_merged(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="x_options: [a]", top="x_options: {account: us}")
    place = r"motoko.yaml:4: task_managers.add.x_options: this is a list.*mapping \(.*motoko.yaml:6\)"
    with pytest.raises(ConfigError, match=place) as raised:
        settings(opened)
    assert "both as mappings" in str(raised.value)


@pytest.mark.parametrize(
    ("add", "top", "place"),
    [
        ("bash_options: {stdot: true}", "", r"motoko.yaml:4: task_managers.add.bash_options: unknown option"),
        ("bash_options: [stdot]", "", r"motoko.yaml:4: task_managers.add.bash_options: unknown option"),
        ("bash_options: [stdout]", "bash_options: [stdot]", r"motoko.yaml:6: bash_options: unknown option"),
    ],
)
def test_wrong_options_are_told_with_the_line_that_they_stand_on(
    tmp_path: Path, add: str, top: str, place: str
) -> None:
    with pytest.raises(ConfigError, match=place) as raised:
        made(workflow(tmp_path, add=add, top=top))
    assert "'stdout'" in str(raised.value)


def test_what_holds_for_a_whole_launcher_is_refused_in_a_task_manager(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'slots' holds for all that a launcher executes") as raised:
        made(workflow(tmp_path, add="bash_options: [slots=1]", top="bash_options: [slots=3]"))
    assert "motoko.yaml:4" in str(raised.value)
    assert "slots: 4" in str(raised.value)
    made(workflow(tmp_path, add="bash_options: [slots=3]", top="bash_options: [slots=3]"))


def test_the_default_generator_has_the_workflows_options(tmp_path: Path) -> None:
    opened = workflow(tmp_path, add="bash_options: [stdout]", top="bash_options: [slots=3]")
    assert make_generator(opened).options == attrs.evolve(made(opened)["add"][1], stdout=False)
