"""Importing the user's orchestrator, and what is said when that does not work."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoko_core.config import WorkflowConfig
from motoko_core.errors import ActionError, ConfigError
from motoko_core.orchestrator import load_orchestrator, orchestrator_function


@pytest.fixture(autouse=True)
def _restored_imports() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)


def config(directory: Path, spec: str = "orchestrator.main", **files: str) -> WorkflowConfig:
    """Write a workflow directory with one ``<name>.py`` per keyword."""
    directory.mkdir(exist_ok=True)
    (directory / "motoko.yaml").touch()
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    return WorkflowConfig(
        path=directory / "motoko.yaml",
        directory=directory,
        task_managers={},
        orchestrator=spec,
        lines={"orchestrator": 4},
    )


MAIN = "async def main(workflow, **params):\n    return 1\n"


def test_async_function_is_found(tmp_path: Path) -> None:
    given = config(tmp_path, orchestrator=MAIN)
    function = orchestrator_function(given, load_orchestrator(given))
    assert function.__name__ == "main"
    assert inspect.iscoroutinefunction(function)


def test_plain_function_is_accepted(tmp_path: Path) -> None:
    given = config(tmp_path, "orchestrator.go", orchestrator="def go():\n    return 7\n")
    assert orchestrator_function(given, load_orchestrator(given))() == 7


def test_module_is_known_as_orchestrator_and_by_its_own_name(tmp_path: Path) -> None:
    module = load_orchestrator(config(tmp_path, "my_flow.main", my_flow=MAIN))
    assert sys.modules["orchestrator"] is module
    assert sys.modules["my_flow"] is module
    assert module.__name__ == "orchestrator"
    assert module.__file__ == str(tmp_path / "my_flow.py")


def test_module_named_like_a_library_does_not_replace_it(tmp_path: Path) -> None:
    module = load_orchestrator(config(tmp_path, "json.main", json=MAIN))
    assert sys.modules["json"] is json
    assert sys.modules["orchestrator"] is module


def test_module_imports_its_neighbours_before_anything_else(tmp_path: Path) -> None:
    given = config(tmp_path, orchestrator="from neighbour import main\n", neighbour=MAIN)
    sys.path.append(str(tmp_path))
    load_orchestrator(given)
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.modules["neighbour"].__file__ == str(tmp_path / "neighbour.py")


def test_changed_file_is_seen_when_it_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    given = config(tmp_path, "flow.go", flow="def go():\n    return 1\n")
    first = load_orchestrator(given)
    # As long as before, and of the same second: a bytecode cache would be taken for current.
    before = (tmp_path / "flow.py").stat()
    (tmp_path / "flow.py").write_text("def go():\n    return 2\n")
    os.utime(tmp_path / "flow.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = load_orchestrator(given)
    assert orchestrator_function(given, first)() == 1
    assert orchestrator_function(given, second)() == 2
    assert sys.modules["flow"] is sys.modules["orchestrator"] is second


def test_workflows_do_not_share_neighbours_of_the_same_name(tmp_path: Path) -> None:
    one = config(tmp_path / "one", orchestrator="from near import go\n", near="def go():\n    return 1\n")
    two = config(tmp_path / "two", orchestrator="from near import go\n", near="def go():\n    return 2\n")
    load_orchestrator(one)
    assert load_orchestrator(two).go() == 2


def test_missing_module_is_named_with_the_file_and_the_nearest(tmp_path: Path) -> None:
    given = config(tmp_path, "orchestator.main", orchestrator=MAIN)
    with pytest.raises(ConfigError) as caught:
        load_orchestrator(given)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/motoko.yaml:4: ")
    assert str(tmp_path / "orchestator.py") in text
    assert "Did you mean 'orchestrator'?" in text


def test_missing_function_is_named_with_the_nearest(tmp_path: Path) -> None:
    given = config(tmp_path, "orchestrator.mian", orchestrator="from json import loads\n" + MAIN)
    module = load_orchestrator(given)
    with pytest.raises(ConfigError) as caught:
        orchestrator_function(given, module)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/motoko.yaml:4: ")
    assert "'mian'" in text
    assert str(tmp_path / "orchestrator.py") in text
    assert "Did you mean 'main'? Known: main." in text


def test_name_that_is_no_function_is_refused(tmp_path: Path) -> None:
    given = config(tmp_path, orchestrator="main = 3\n")
    module = load_orchestrator(given)
    with pytest.raises(ConfigError, match=r"'main' in .*orchestrator\.py, which is 3") as caught:
        orchestrator_function(given, module)
    assert "async def main" in str(caught.value)


IMPORTS_THAT_FAIL = {
    "exception": ("x = 1\n1 / 0\n", ZeroDivisionError, 2, "ZeroDivisionError: division by zero"),
    "exception in a library": (
        "import json\n\njson.loads('')\n",
        ValueError,
        3,
        "JSONDecodeError: Expecting",
    ),
    "exception in a function": ("def f():\n    raise OSError('no')\n\nf()\n", OSError, 2, "OSError: no"),
    "exception of several lines": ("raise OSError('a\\nb')\n", OSError, 1, "OSError: a\nb"),
    "exception without a text": ("\nassert False\n", AssertionError, 2, "AssertionError"),
    "syntax": ("x = 1\n\ndef main(:\n", SyntaxError, 3, "SyntaxError: invalid syntax"),
    "exit": ("import sys\nsys.exit(3)\n", SystemExit, 2, "SystemExit: 3"),
    "exit without error": ("raise SystemExit(0)\n", SystemExit, 1, "SystemExit: 0"),
    "unknown import": ("\nimport motoko_no_such\n", ModuleNotFoundError, 2, "'motoko_no_such'"),
}


@pytest.mark.parametrize("case", IMPORTS_THAT_FAIL)
def test_failing_import_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, cause, line, words = IMPORTS_THAT_FAIL[case]
    with pytest.raises(ActionError) as caught:
        load_orchestrator(config(tmp_path, "flow.main", flow=text))
    assert str(caught.value).startswith(f"{tmp_path}/flow.py:{line}: ")
    assert words in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)
    assert caught.value.exit_code == 1
    assert "flow" not in sys.modules


@pytest.mark.parametrize("text", ["1 / 0\n", "def broken(:\n"])
def test_failing_neighbour_is_the_place_that_is_named(tmp_path: Path, text: str) -> None:
    given = config(tmp_path, orchestrator="import neighbour\n", neighbour="\n\n" + text)
    with pytest.raises(ActionError) as caught:
        load_orchestrator(given)
    assert str(caught.value).startswith(f"{tmp_path}/neighbour.py:3: ")


def test_file_with_null_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="null bytes"):
        load_orchestrator(config(tmp_path, orchestrator="x = '\0'\n"))


def test_missing_library_is_explained_with_the_interpreter(tmp_path: Path) -> None:
    with pytest.raises(ActionError) as caught:
        load_orchestrator(config(tmp_path, orchestrator="import motoko_no_such\n"))
    assert sys.executable in str(caught.value)


def test_failed_import_leaves_the_module_that_was_there(tmp_path: Path) -> None:
    given = config(tmp_path, "flow.main", flow=MAIN)
    good = load_orchestrator(given)
    (tmp_path / "flow.py").write_text("1 / 0\n")
    with pytest.raises(ActionError):
        load_orchestrator(given)
    assert sys.modules["orchestrator"] is sys.modules["flow"] is good


def test_interrupt_while_importing_is_not_taken_for_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_orchestrator(config(tmp_path, orchestrator="raise KeyboardInterrupt\n"))
