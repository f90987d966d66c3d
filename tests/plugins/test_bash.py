"""How jobs of the bash generator end by themselves or cancelled, and the generator's options."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from motoko_core.daemons import is_gone, wait_until
from motoko_core.errors import ConfigError
from motoko_core.interfaces import TAG_VARIABLE, Ended
from motoko_plugins.generators import bash
from motoko_plugins.generators._environment import job_environment
from motoko_plugins.generators.bash import BashGenerator, BashOptions
from tests.conftest import TIMEOUT_S
from tests.launching import read_line, release
from tests.plugins.conftest import make_task, next_ends, run


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("true", 0),
        ("false", 1),
        ("exit 3", 3),
        ("exit 137", 137),
        ("kill -9 $$", -9),
        ("kill -SEGV $$", -11),
        ("kill -9 0", -9),  # the whole group
        ("bash -c 'kill -9 $$'; exit $?", 137),  # a command was killed, as shells say it
        ("rm .motoko-*; exit 4", 4),
    ],
)
async def test_the_end_tells_the_exit_code_or_the_signal(
    generator: BashGenerator, tmp_path: Path, script: str, exit_code: int
) -> None:
    task = make_task(tmp_path, script)
    assert await run(generator, task) == Ended(tag=task.tag, exit_code=exit_code)


async def test_output_goes_to_files_that_a_new_attempt_starts_afresh(
    generator: BashGenerator, tmp_path: Path
) -> None:
    first = make_task(tmp_path, "cat; pwd; echo much more; echo wrong >&2", run_name="a/b")
    await run(generator, first)
    assert (first.directory / "a_b.o1").read_text() == f"{first.directory}\nmuch more\n"
    assert first.stderr.read_text() == "wrong\n"
    assert first.stderr.name == "a_b.e1"

    second = make_task(tmp_path, "echo once", run_name="a/b", tag="motoko-second-attempt")
    await run(generator, second)
    assert second.stdout.read_text() == "once\n"
    assert second.stderr.read_text() == ""


async def test_the_job_is_alone_in_its_session_with_default_signals(
    generator: BashGenerator, tmp_path: Path
) -> None:
    # SIGPIPE, which Python ignores, ends `yes`: 141 instead of an error message.
    script = 'ps -o sid= -p $$; echo $$; yes | head -1 >/dev/null; echo "${PIPESTATUS[0]}"'
    task = make_task(tmp_path, script)
    await run(generator, task)
    session, pid, status = task.stdout.read_text().split()
    assert session == pid
    assert status == "141"


async def test_the_job_holds_none_of_our_descriptors(tmp_path: Path, generator: BashGenerator) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    task = make_task(tmp_path, "ls /proc/$$/fd")
    await run(generator, task)
    descriptors = task.stdout.read_text().split()
    assert descriptors == ["0", "1", "2", "255"]  # bash holds its script at 255
    os.close(reader)
    os.close(writer)


async def test_standard_output_of_the_launcher_can_be_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = BashGenerator(BashOptions(slots=1, stdout=True))
    task = make_task(tmp_path, "echo here; echo there >&2")
    await run(generator, task)
    await generator.close()
    assert capfd.readouterr() == ("here\n", "there\n")
    assert not task.stdout.exists()


async def test_the_programs_beside_our_python_are_found_first(
    generator: BashGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = str(Path(sys.executable).parent)
    others = [path for path in os.environ["PATH"].split(os.pathsep) if path != programs]
    monkeypatch.setenv("PATH", os.pathsep.join(others))
    task = make_task(tmp_path, "command -v python")
    await run(generator, task)
    assert task.stdout.read_text() == f"{programs}/python\n"
    monkeypatch.setenv("PATH", f"/usr/bin:{programs}")
    assert job_environment()["PATH"] == f"/usr/bin:{programs}"


def test_jobs_of_a_launcher_within_a_task_are_not_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TAG_VARIABLE, "a task's")
    assert TAG_VARIABLE not in job_environment()


async def test_a_job_knows_its_tag(generator: BashGenerator, tmp_path: Path) -> None:
    task = make_task(tmp_path, "echo $MOTOKO_TAG")
    await run(generator, task)
    assert task.stdout.read_text() == f"{task.tag}\n"


async def test_a_job_that_cannot_start_ends_with_the_reason_and_leaves_the_others_alone(
    generator: BashGenerator, tmp_path: Path
) -> None:
    bad = [
        make_task(tmp_path, "true", 1, directory=tmp_path / "absent"),
        make_task(tmp_path, "true", 2, script="zero\0byte"),
        make_task(tmp_path, "true", 3, run_name="x" * 300),
    ]
    good = make_task(tmp_path, "true", 4)
    await generator.submit([*bad, good])
    *failed, ended = await next_ends(generator, 4)
    assert [(end.tag, end.reason) for end in failed] == [(task.tag, "SUBMIT") for task in bad]
    assert all(end.message.startswith("cannot be started: ") for end in failed)
    assert "absent" in failed[0].message
    assert ended == Ended(tag=good.tag, exit_code=0)


# --------------------------------------------------------------------------- cancelling


async def test_cancelling_is_polite_first(generator: BashGenerator, tmp_path: Path, fifo: Path) -> None:
    script = f"trap 'echo tidy; exit 5' TERM; sleep 1000 & echo ready > {fifo}; wait"
    task, other = make_task(tmp_path, script, 1), make_task(tmp_path, f"read < {fifo}", 2)
    await generator.submit([task])
    await read_line(fifo)
    await generator.submit([other])
    await generator.cancel([task.tag, "unknown"], grace_s=TIMEOUT_S)
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=5, reason="CANCELLED")]
    assert task.stdout.read_text() == "tidy\n"
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=other.tag, exit_code=0)]


async def test_a_job_that_does_not_listen_is_killed_with_its_children(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    script = f"exec 5> {fifo}; trap '' TERM; sleep 1000 & echo ready >&5; wait"
    task = make_task(tmp_path, script)
    await generator.submit([task])
    with await asyncio.to_thread(fifo.open) as held_by_all:
        assert await asyncio.to_thread(held_by_all.readline) == "ready\n"
        await generator.cancel([task.tag], grace_s=0.05)
        assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-9, reason="CANCELLED")]
        assert await asyncio.wait_for(asyncio.to_thread(held_by_all.read), TIMEOUT_S) == ""


async def test_a_child_may_tidy_up_after_its_shell_has_gone(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    child = f"trap 'echo tidy > tidied; exit' TERM; sleep 1000 & echo ready > {fifo}; wait"
    (tmp_path / "child.sh").write_text(child)
    task = make_task(tmp_path, "bash ../child.sh; true")
    await generator.submit([task])
    await read_line(fifo)
    await generator.cancel([task.tag], grace_s=TIMEOUT_S)
    assert (task.directory / "tidied").read_text() == "tidy\n"
    assert await next_ends(generator, 1) == [Ended(tag=task.tag, exit_code=-15, reason="CANCELLED")]


@pytest.mark.parametrize("own", ["setsid", "env -i setsid"])
async def test_cancelling_reaches_programs_in_sessions_of_their_own(
    generator: BashGenerator, tmp_path: Path, fifo: Path, own: str
) -> None:
    task = make_task(tmp_path, f"{own} sh -c 'echo $$ > {fifo}; exec sleep 1000' & wait")
    await generator.submit([task])
    child = psutil.Process(int(await read_line(fifo)))
    await generator.cancel([task.tag])
    assert (await next_ends(generator, 1))[0].reason == "CANCELLED"
    assert await asyncio.to_thread(wait_until, lambda: is_gone(child), TIMEOUT_S)


async def test_a_waiting_job_is_cancelled_without_having_started(
    generator: BashGenerator, tmp_path: Path, fifo: Path
) -> None:
    wide = make_task(tmp_path, f"read < {fifo}", 1, nproc=4)
    waiting = make_task(tmp_path, "touch started", 2)
    await generator.submit([wide, waiting])
    await generator.cancel([waiting.tag])
    assert await next_ends(generator, 1) == [Ended(tag=waiting.tag, exit_code=None, reason="CANCELLED")]
    await release(fifo)
    assert await next_ends(generator, 1) == [Ended(tag=wide.tag, exit_code=0)]
    assert not (waiting.directory / "started").exists()


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize("form", ["slots=4", "--slots=4", "--slots 4", "slots 4", " slots = 4 "])
def test_options_have_several_forms(form: str) -> None:
    assert BashOptions.from_strings([form]) == BashOptions(slots=4)


def test_flags_are_options_of_blackdynamite() -> None:
    options = BashOptions.from_strings(["--stdout", "--stop-on-error"])
    assert (options.stdout, options.stop_on_error) == (True, True)
    assert BashOptions.from_strings(["stdout=False", "stop_on_error=true"]).stdout is False
    assert BashOptions.from_strings([]) == BashOptions()


def test_as_many_slots_as_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    assert BashOptions().slots == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert BashOptions().slots == 7


def test_an_unknown_option_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown option '--slot=4'\n.*Did you mean 'slots'"):
        BashOptions.from_strings(["--slot=4"])
    with pytest.raises(ConfigError, match="unknown option ''"):
        BashOptions.from_strings([""])


@pytest.mark.parametrize(
    "option", ["slots", "slots=0", "slots=-1", "slots=many", "slots=1.5", "stdout=maybe"]
)
def test_a_wrong_value_is_an_error(option: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a positive whole number|neither true nor false"):
        BashOptions.from_strings([option])
    with pytest.raises(ConfigError, match="slots = True"):
        BashOptions(slots=True)


def test_the_plugin_provides_bash() -> None:
    assert bash.motoko_generators() == {"bash": BashGenerator}
    assert BashGenerator.Options is BashOptions
