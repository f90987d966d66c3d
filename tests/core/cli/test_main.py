from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from motoko_core.cli import clean, plugins
from motoko_core.cli import main as main_module
from motoko_core.cli.main import COMMANDS, main
from motoko_core.errors import ActionError, ConfigError, PluginError, StudyError
from motoko_core.interfaces import CliCommand
from tests.core.cli.conftest import command

Captured = pytest.CaptureFixture[str]
Raising = Callable[[BaseException], None]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Raising:
    """Let ``motoko info`` raise."""

    def install(error: BaseException) -> None:
        def run(args: object) -> int:
            raise error

        broken = CliCommand(name="info", help="", configure=lambda parser: None, run=run)
        monkeypatch.setattr(main_module, "COMMANDS", (broken,))

    return install


def test_help_lists_every_command(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for each in COMMANDS:
        assert f"    {each.name}" in text


def test_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys; from motoko_core.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ZODB', 'ZEO', 'BlackDynamite', 'rich', 'asyncio', 'psutil', 'motoko_core.workflow'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [each.name for each in COMMANDS])
def test_every_command_shows_its_help_outside_of_a_workflow(
    name: str, nowhere: Path, capsys: Captured
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([name, "--help"])
    assert leaving.value.code == 0
    assert f"usage: motoko {name}" in capsys.readouterr().out


def test_version_is_that_of_the_distribution(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"motoko {version('motoko')}\n"


@pytest.mark.parametrize("words", [[], ["fly"], ["info", "--wings"], ["orchestrator"], ["-C"]])
def test_a_command_line_that_cannot_be_ends_with_2(words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    assert "usage: motoko" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["info"],
        ["create"],
        ["launcher"],
        ["kill"],
        ["clean"],
        ["run", "-n", "a"],
        ["orchestrator", "start", "-n", "a"],
        ["orchestrator", "status"],
    ],
)
def test_without_a_workflow_a_command_says_what_to_do(
    words: list[str], nowhere: Path, capsys: Captured
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"motoko: error: there is no motoko.yaml in {nowhere}")
    assert "motoko -C DIR" in err
    assert "motoko init" in err


def test_the_directory_given_with_c_must_hold_the_workflow(nowhere: Path, capsys: Captured) -> None:
    assert main(["-C", str(nowhere / "other"), "info"]) == 2
    assert f"there is no motoko.yaml in {nowhere / 'other'}" in capsys.readouterr().err


def test_the_workflow_is_found_above_the_current_directory(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (nowhere / "motoko.yaml").write_text("orchestrator: 3\n")
    below = nowhere / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert main(["info"]) == 2
    assert str(nowhere / "motoko.yaml") in capsys.readouterr().err


def test_an_error_of_motokos_is_one_message_with_its_exit_code(raising: Raising, capsys: Captured) -> None:
    raising(ConfigError("bad", where="motoko.yaml:3", hint="Mend it."))
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "motoko: error: motoko.yaml:3: bad\n  Mend it.\n"
    raising(StudyError("gone"))
    assert main(["info"]) == 1


@pytest.mark.parametrize("words", [["--verbose", "info"], ["info", "--verbose"]])
def test_verbose_shows_the_traceback(raising: Raising, words: list[str], capsys: Captured) -> None:
    raising(StudyError("gone"))
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("motoko: error: gone\n")


def test_an_error_in_user_code_tells_how_to_see_its_traceback(raising: Raising, capsys: Captured) -> None:
    raising(ActionError("main raised KeyError: 1", where="orchestrator.py:3"))
    assert main(["info"]) == 1
    text = "motoko: error: orchestrator.py:3: main raised KeyError: 1\n"
    assert capsys.readouterr().err == text + "  With --verbose, the traceback is shown as well.\n"
    assert main(["--verbose", "info"]) == 1
    assert capsys.readouterr().err.endswith(text)


def test_an_unexpected_error_names_its_type_and_asks_for_verbose(raising: Raising, capsys: Captured) -> None:
    raising(ZeroDivisionError("by zero"))
    assert main(["info"]) == 1
    err = capsys.readouterr().err
    assert "motoko: internal error: ZeroDivisionError: by zero" in err
    assert "--verbose" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_with_1_and_a_message(raising: Raising, capsys: Captured) -> None:
    raising(KeyboardInterrupt())
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "motoko: interrupted\n"


def test_a_reader_that_has_gone_is_no_error(raising: Raising, capsys: Captured) -> None:
    error = StudyError("an action printed")
    error.__cause__ = BrokenPipeError()
    raising(error)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == ""


_FULL = "motoko: error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plugins | head -0", ""),
        ("plugins >&-", "motoko: error: standard output is closed\n"),
        ("plugins > /dev/full", _FULL),
        ("--version > /dev/full", _FULL),
        ("plugins > /dev/full 2>&1", ""),
    ],
)
def test_an_output_that_takes_nothing(words: str, message: str) -> None:
    line = f"{' '.join(command())} {words}; echo ${{PIPESTATUS[0]}} >&2"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert result.stderr == message + "1\n"


# ---------------------------------------------------------------------- plugins' commands


def command_of_a_plugin(name: str = "fly") -> CliCommand:
    return CliCommand(
        name=name,
        help="go up",
        configure=lambda parser: parser.add_argument("--how_high", type=int),  # type: ignore[arg-type]
        run=lambda args: args.how_high,
    )


def test_a_plugin_adds_a_command(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(plugins, "commands", lambda directory: [command_of_a_plugin()])
    assert main(["fly", "--how-high", "3"]) == 3
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "go up" in capsys.readouterr().out


def test_plugins_are_not_loaded_for_a_built_in_command(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path, capsys: Captured
) -> None:
    monkeypatch.setattr(plugins, "commands", lambda directory: pytest.fail("loaded"))
    assert main(["info"]) == 2


def test_a_plugin_cannot_replace_a_built_in_command(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.setattr(plugins, "commands", lambda directory: [command_of_a_plugin("info")])
    assert main(["info"]) == 2
    with pytest.raises(SystemExit):
        main(["--help"])


def test_plugins_that_contradict_each_other_cost_their_commands_only(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def contradiction(directory: object) -> None:
        raise PluginError("two claims")

    monkeypatch.setattr(plugins, "_is_own", lambda entry: False)
    monkeypatch.setattr(plugins, "registry", contradiction)
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    assert "two claims" in capsys.readouterr().err


# ---------------------------------------------------------------------- log lines


@pytest.mark.parametrize(
    ("words", "shown"),
    [(["clean"], ["warned"]), (["clean", "--verbose"], ["debugged", "told", "warned"])],
)
def test_log_lines_go_to_stderr(
    words: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def run(args: object) -> int:
        logger = logging.getLogger("motoko.somewhere")
        logger.debug("debugged")
        logger.info("told")
        logger.warning("warned")
        return 0

    talking = CliCommand(name="clean", help="", configure=clean.configure, run=run)
    monkeypatch.setattr(main_module, "COMMANDS", (talking,))
    before = logging.getLogger("motoko").handlers[:]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert [line.split(" ", 1)[1] for line in captured.err.splitlines()] == shown
    assert captured.out == ""
    assert logging.getLogger("motoko").handlers == before
