"""What is said about each mistake in motoko.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from motoko_core.errors import ConfigError
from tests.core.config_files import ORCHESTRATOR, SMALLEST, assert_refused, assert_says, workflow

# What is added to SMALLEST (its lines are 1 to 4) or, in FILES, is all there is; the line; the words.
ADDED = {
    "unknown key": ("orchestator: a.b\n", 5, ["unknown key 'orchestator'", "Did you mean 'orchestrator'?"]),
    "options of nothing": ("_options: []\n", 5, ["unknown key '_options'"]),
    "key that is no text": ("on: 1\n", 5, ["bool True", "quotes"]),
    "duplicate key": ("orchestrator: b.c\n", 5, ["'orchestrator' is there twice", "line 4"]),
    "duplicate key deep inside": (
        "x_options:\n  y:\n    - {a: 1,\n       a: 2}\n",
        8,
        ["'a' is there twice", "line 7"],
    ),
    "aliases list": ("aliases: [add]\n", 5, ["'aliases' must be a mapping, not list ['add']", "Write"]),
    "alias of a list": ("aliases:\n  plus: [add]\n", 6, ["'aliases.plus' must be text", "list"]),
    "alias to itself": ("aliases:\n  a: a\n", 6, ["alias 'a' leads round in a circle: a -> a"]),
    "alias cycle": ("aliases:\n  a: b\n  b: c\n  c: b\n", 8, ["circle: a -> b -> c -> b", "task manager"]),
    "alias to nothing": ("aliases:\n  a: ad\n", 6, ["'a' names 'ad'", "Did you mean 'add'?"]),
    "alias to nothing by another": ("aliases:\n  a: b\n  b: ad\n", 7, ["'b' names 'ad'"]),
    "alias hides reserved": ("aliases:\n  finished: add\n", 6, ["'finished'", "workflow.finished"]),
    "alias hides all": ("aliases:\n  __all__: add\n", 6, ["'__all__'", "all task managers"]),
    "alias like task manager": ("aliases:\n  add: mult\n", 6, ["'add' has the name of a task manager"]),
    "alias with a dot": ("aliases:\n  a.b: add\n", 6, ["'a.b' cannot be a name", "letters"]),
    "generator list": ("generator: [bash]\n", 5, ["'generator' must be text, not list"]),
    "generator Coat": ("generator: Coat\n", 5, ["'Coat'"]),
    "options text": ("bash_options: --fast\n", 5, ["must be a list, not str '--fast'", "mapping"]),
    "option number": ("bash_options:\n  - a\n  - 3\n", 7, ["'bash_options[1]' must be text, not int 3"]),
    "options twice": ("x_options: []\nxCoat_options: []\n", 6, ["'xCoat_options' repeats", "x_options"]),
    "options key number": ("x_options:\n  1: a\n", 6, ["'x_options' must be text, not int 1", "quotes"]),
    "handlers text": ("error_handlers: retry\n", 5, ["'error_handlers' must be a list", "'retry'"]),
    "handler number": ("error_handlers:\n  - 1\n", 6, ["'error_handlers[0]' must be text", "int 1"]),
    "handler with two keys": (
        "error_handlers:\n  - ignore\n  - retry:\n    times: 3\n",
        7,
        ["'error_handlers[1]' must have one key", "indented"],
    ),
    "handler settings": (
        "error_handlers:\n  - retry: 3\n",
        6,
        ["'error_handlers[0].retry' must be a mapping, not int 3"],
    ),
    "poll_interval 0": ("poll_interval: 0\n", 5, ["above 0", "int 0", "poll_interval: 2.0"]),
    "poll_interval text": ("poll_interval: 2s\n", 5, ["number of seconds", "str '2s'"]),
    "poll_interval bool": ("poll_interval: true\n", 5, ["number of seconds", "bool True"]),
    "poll_interval nan": ("poll_interval: .nan\n", 5, ["number of seconds", "nan"]),
    "poll_interval inf": ("poll_interval: .inf\n", 5, ["number of seconds", "inf"]),
    "plugins list": ("plugins: [a]\n", 5, ["'plugins' must be a mapping, not list"]),
    "plugins key": ("plugins:\n  blocks: [a]\n", 6, ["unknown key 'blocks' in 'plugins'", "'block'?"]),
    "prefer nested": (
        "plugins:\n  prefer:\n    generators: {a: b}\n",
        7,
        ["'plugins.prefer.generators' must be text, not dict"],
    ),
    "block text": ("plugins:\n  block: pbs\n", 6, ["'plugins.block' must be a list, not str 'pbs'"]),
}


FILES = {
    "no task_managers": (ORCHESTRATOR, 1, ["'task_managers' is missing", "Write"]),
    "no orchestrator": ("task_managers: {add: }\n", 1, ["'orchestrator' is missing", "orchestrator.main"]),
    "task_managers blank": ("task_managers:\n" + ORCHESTRATOR, 1, ["names no task manager"]),
    "task_managers list": (
        ORCHESTRATOR + "task_managers: [add]\n",
        2,
        ["'task_managers' must be a mapping, not list ['add']", "one <study>: per line"],
    ),
    "task_managers text": (ORCHESTRATOR + "task_managers: add\n", 2, ["must be a mapping, not str 'add'"]),
    "task manager number": (
        ORCHESTRATOR + "task_managers:\n  1:\n",
        3,
        ["'task_managers'", "int 1", "quotes"],
    ),
    "task manager text": (
        ORCHESTRATOR + "task_managers:\n  add: zeo://x\n",
        3,
        ["'task_managers.add' must be a mapping, not str 'zeo://x'"],
    ),
    "task manager key": (
        ORCHESTRATOR + "task_managers:\n  add:\n    hots: zeo://x\n",
        4,
        ["unknown key 'hots' in 'task_managers.add'", "Did you mean 'host'?"],
    ),
    "task manager dot": (ORCHESTRATOR + "task_managers:\n  a.b:\n", 3, ["'a.b' cannot be a name", "letters"]),
    "task manager slash": (ORCHESTRATOR + "task_managers:\n  a/b:\n", 3, ["'a/b' cannot be a name"]),
    "task manager reserved": (
        ORCHESTRATOR + "task_managers:\n  finished:\n",
        3,
        ["'finished' in 'task_managers'", "workflow.finished", "another name"],
    ),
    "task manager __all__": (ORCHESTRATOR + "task_managers:\n  __all__:\n", 3, ["all task managers"]),
    "host list": (
        ORCHESTRATOR + "task_managers:\n  add:\n    host: [zeo]\n",
        4,
        ["'task_managers.add.host' must be text, not list ['zeo']", "zeo://<directory>"],
    ),
    "slots of a task manager 0": (
        ORCHESTRATOR + "task_managers:\n  add:\n    slots: 0\n",
        4,
        ["'task_managers.add.slots' must be a positive whole number, not int 0", "slots: 4"],
    ),
    "max_running true": (
        ORCHESTRATOR + "task_managers:\n  add:\n    max_running: true\n",
        4,
        ["'task_managers.add.max_running'", "bool True", "max_running: 4"],
    ),
    "max_running text": (
        ORCHESTRATOR + "task_managers:\n  add:\n    host:\n    max_running: many\n",
        5,
        ["'task_managers.add.max_running'", "str 'many'"],
    ),
    "max_runing": (
        ORCHESTRATOR + "task_managers:\n  add:\n    max_runing: 3\n",
        4,
        ["unknown key 'max_runing' in 'task_managers.add'", "Did you mean 'max_running'?"],
    ),
    "generator of a task manager list": (
        ORCHESTRATOR + "task_managers:\n  add:\n    generator: [bash]\n",
        4,
        ["'task_managers.add.generator' must be text, not list"],
    ),
    "options of a task manager text": (
        ORCHESTRATOR + "task_managers:\n  add:\n    bash_options: --fast\n",
        4,
        ["'task_managers.add.bash_options' must be a list, not str '--fast'", "mapping"],
    ),
    "options of a task manager twice": (
        ORCHESTRATOR + "task_managers:\n  add:\n    x_options: []\n    xCoat_options: []\n",
        5,
        ["'xCoat_options' repeats", "x_options"],
    ),
}


@pytest.mark.parametrize("case", ADDED)
def test_mistake_in_a_workflow_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, line, words = ADDED[case]
    assert_refused(tmp_path, SMALLEST + text, line, words)


@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_workflow_is_refused_with_the_line(tmp_path: Path, case: str) -> None:
    assert_refused(tmp_path, *FILES[case])


@pytest.mark.parametrize(
    "spec",
    ["main", "a.b.c", "a.", ".b", "a-b.main", "1a.main", "a.class", "'a.b '", "orchestrator.py.main"],
)
def test_orchestrator_must_be_a_module_and_a_function(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"task_managers: {{add: }}\norchestrator: {spec}\n")
    words = ["'orchestrator' cannot be", spec.strip("'"), "<module>.<function>"]
    assert_says(caught.value, tmp_path / "motoko.yaml", 2, words)


def test_orchestrator_must_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, "task_managers: {add: }\norchestrator: 1.5\n")
    assert_says(caught.value, tmp_path / "motoko.yaml", 2, ["'orchestrator' must be text", "float 1.5"])


@pytest.mark.parametrize(
    "host",
    [
        "/data/add",
        "localhost:8080",
        "http://localhost:80",
        "zeo://",
        "zeo:/data",
        "zeo://node:",
        "zeo://node:0",
        "zeo://node:65536",
        "zeo://node:http",
        "zeo://:80",
        "zeo://a:b:80",
    ],
)
def test_host_must_be_a_directory_or_a_server(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"{ORCHESTRATOR}task_managers:\n  add:\n    host: {host!r}\n")
    words = ["'task_managers.add.host'", repr(host), "zeo://<directory>", "zeo://<host>:<port>"]
    assert_says(caught.value, tmp_path / "motoko.yaml", 4, words)


@pytest.mark.parametrize(
    ("host", "word"),
    [("zeo://$MOTOKO_UNSET/a", "$MOTOKO_UNSET is not set"), ("zeo://~motoko-nobody/a", "no home directory")],
)
def test_host_with_a_variable_that_means_nothing_is_refused(tmp_path: Path, host: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow(tmp_path, f"{ORCHESTRATOR}task_managers:\n  add:\n    host: {host}\n")
    assert_says(caught.value, tmp_path / "motoko.yaml", 4, [host, word])
