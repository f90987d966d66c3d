"""What becomes of the jobs that a generator gets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from motoko_core.interfaces import Ended, LaunchTask, Submitted
from motoko_core.testing.following import Following, is_alive, is_good, make_task, until
from motoko_core.testing.subject import Subject, in_loop

__all__ = ["JobTests"]

#: Whatever executes a part of it leaves a file of that name.
_MARK = "pwned"
_STRANGE = f'it\'s "3 < 4" & `touch {_MARK}` $(touch {_MARK}); touch {_MARK} | $HOME * \\ %j%A %% {{}} é'
_DIRECTIVES = "#SBATCH --begin=now+1hour\n#SBATCH --chdir=/\n#PBS -q nowhere\n#$ -q nowhere\n"
_LONG = 300_000

_SCRIPTS = {
    "success": "exit 0",
    "exit code": "exit 7",
    "high exit code": "exit 137",
    "killed": "kill -9 $$",
    "output": f"head -c {_LONG} /dev/zero | tr '\\0' o; echo problem >&2; echo end",
    "surroundings": 'pwd -P; echo "$PATH"; echo "$MOTOKO_TAG"; cat; echo "$# arguments"',
    "strange": f"{_DIRECTIVES}cat <<'EOF'\n{_STRANGE}\n{_DIRECTIVES}EOF\npwd -P",
    "lines in names": f"{_DIRECTIVES}echo done",
    "no directory": "touch executed",
}


@attrs.frozen
class Outcome:
    """A job that was submitted with others, and what was told about it."""

    task: LaunchTask
    answer: Submitted
    end: Ended | None

    @property
    def stdout(self) -> str:
        return self.task.stdout.read_text()


class JobTests(Subject):
    """One batch with jobs of every kind, a large one, and what is cancelled."""

    @pytest.fixture(scope="class")
    @classmethod
    def outcomes(cls, workflow_directory: Path) -> Mapping[str, Outcome]:
        """What becomes of one batch, by the kind of job; made once, because schedulers take their time."""
        root = workflow_directory / "batch"
        names = {
            "strange": {"run_name": _STRANGE, "directory": root / _STRANGE.replace("/", "_")},
            "lines in names": {
                "run_name": f"a\n{_DIRECTIVES}touch {_MARK}\n",
                "directory": root / f"b\ntouch {_MARK}\n#SBATCH --begin=now+1hour\n",
            },
        }
        tasks = {kind: make_task(root, text, **names.get(kind, {})) for kind, text in _SCRIPTS.items()}
        absent = tasks["no directory"].directory
        (absent / "launch.sh").unlink()
        absent.rmdir()

        async def story() -> dict[str, Outcome]:
            async with Following(cls.make_generator(workflow_directory), cls.timeout_s) as generator:
                answers = await generator.submit(list(tasks.values()))
                begun = [task for task in tasks.values() if answers[task.tag].handle is not None]
                ends = await generator.known_ends(begun)  # one that hangs fails its own test only
            return {
                kind: Outcome(task, answers[task.tag], ends.get(task.tag)) for kind, task in tasks.items()
            }

        return asyncio.run(story())

    def test_success(self, outcomes: Mapping[str, Outcome]) -> None:
        end = outcomes["success"].end
        assert end is not None
        assert is_good(end), end

    @pytest.mark.parametrize(("kind", "code"), [("exit code", 7), ("high exit code", 137)])
    def test_a_failure_has_the_exit_code_of_the_script(
        self, outcomes: Mapping[str, Outcome], kind: str, code: int
    ) -> None:
        end = outcomes[kind].end
        assert end is not None
        assert end.exit_code == code, end
        assert end.reason in (None, "EXIT_CODE"), end

    def test_a_script_that_is_killed(self, outcomes: Mapping[str, Outcome]) -> None:
        end = outcomes["killed"].end
        assert end is not None
        assert end.exit_code == -9 or end.reason == "SIGNAL", end

    def test_stdout_and_stderr_are_kept_whole_in_files_of_their_own(
        self, outcomes: Mapping[str, Outcome]
    ) -> None:
        outcome = outcomes["output"]
        assert len(outcome.stdout) == _LONG + len("end\n")
        assert outcome.stdout.endswith("oend\n")
        assert outcome.task.stderr.read_text() == "problem\n"

    def test_the_surroundings_of_a_script(self, outcomes: Mapping[str, Outcome]) -> None:
        """Its directory, the programs beside Motoko, no input and no arguments."""
        outcome = outcomes["surroundings"]
        directory, path, _, *rest = outcome.stdout.splitlines()
        assert directory == str(outcome.task.directory.resolve())
        assert str(Path(sys.executable).parent) in path.split(":")
        assert rest == ["0 arguments"]

    def test_a_script_knows_its_tag(self, outcomes: Mapping[str, Outcome]) -> None:
        outcome = outcomes["surroundings"]
        assert outcome.stdout.splitlines()[2] == outcome.task.tag

    def test_strange_names_and_directives_in_a_script_are_inert(
        self, outcomes: Mapping[str, Outcome], workflow_directory: Path
    ) -> None:
        outcome = outcomes["strange"]
        assert outcome.end is not None
        assert is_good(outcome.end), outcome.end
        directory = outcome.task.directory.resolve()
        assert outcome.stdout == f"{_STRANGE}\n{_DIRECTIVES}{directory}\n"
        assert not list(workflow_directory.rglob(_MARK))
        assert not (Path.cwd() / _MARK).exists()

    def test_line_ends_in_names_are_inert(
        self, outcomes: Mapping[str, Outcome], workflow_directory: Path
    ) -> None:
        """A generator that cannot have them in the name of a directory refuses the task."""
        outcome = outcomes["lines in names"]
        if outcome.end is not None and is_good(outcome.end):
            assert outcome.stdout == "done\n"
        else:
            assert outcome.answer.error or (outcome.end is not None and outcome.end.reason == "SUBMIT")
        assert not list(workflow_directory.rglob(_MARK))

    def test_a_task_that_cannot_be_started_fails_alone(self, outcomes: Mapping[str, Outcome]) -> None:
        outcome = outcomes["no directory"]
        assert outcome.answer.error or (outcome.end is not None and not is_good(outcome.end))
        assert outcome.end is None or not outcome.end.again  # the launcher would try it for ever
        assert not outcome.task.directory.exists()

    @in_loop
    async def test_many_jobs(self, workflow_directory: Path) -> None:
        root = workflow_directory / "many"
        tasks = [make_task(root, f"echo {number}") for number in range(self.many)]
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as generator:
            await generator.submit(tasks)
            ends = await generator.ends(tasks)
        assert [end for end in ends if not is_good(end)] == []
        assert [task.stdout.read_text() for task in tasks] == [f"{n}\n" for n in range(self.many)]

    @in_loop
    async def test_room_and_intents(self, workflow_directory: Path) -> None:
        """Both are asked before anything is submitted; an intent can be stored."""
        tasks = [make_task(workflow_directory / "intents", "touch executed") for _ in range(3)]
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as generator:
            room = generator.generator.room()
            assert room is None or room > 0
            intents = generator.generator.intents(tasks)
            assert len(intents) == len(tasks)
            for intent in intents:
                assert isinstance(intent, Mapping)
                assert json.loads(json.dumps(dict(intent))) == dict(intent)
            assert list(generator.generator.intents([])) == []
            assert list(await generator.generator.submit([])) == []
            assert await generator.generator.adopt([]) == set()
        assert not any((task.directory / "executed").exists() for task in tasks)

    # ------------------------------------------------------------------ cancelling

    @in_loop
    async def test_a_cancelled_job_ends_with_its_children(self, workflow_directory: Path) -> None:
        """Also one that does not listen to SIGTERM."""
        task = make_task(
            workflow_directory / "cancel",
            "trap '' TERM\nsleep 200 & echo $! > child.new; echo $$ > script\nmv child.new child; wait",
        )
        child = task.directory / "child"
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as generator:
            await generator.submit([task])
            await until(child.exists, "started", self.timeout_s)
            await generator.generator.cancel([task.tag], grace_s=0.1)
            end = await generator.end(task)
        assert end.reason == "CANCELLED", end
        if self.local:
            pids = [int(path.read_text()) for path in (child, task.directory / "script")]
            await until(lambda: not any(map(is_alive, pids)), "without its processes", self.timeout_s)

    @in_loop
    async def test_a_cancelled_job_can_save_itself(self, workflow_directory: Path) -> None:
        task = make_task(
            workflow_directory / "save",
            "trap 'echo > saved; exit 3' TERM\necho > started\nwhile [ -e started ]; do sleep 0.05; done",
        )
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as generator:
            await generator.submit([task])
            await until((task.directory / "started").exists, "started", self.timeout_s)
            await generator.generator.cancel([task.tag], grace_s=self.timeout_s)
            end = await generator.end(task)
        assert end.reason == "CANCELLED", end
        assert (task.directory / "saved").exists()

    @in_loop
    async def test_jobs_that_are_cancelled_at_once(self, workflow_directory: Path) -> None:
        """Some wait for a processor, some may be running. One that is not cancelled goes on."""
        root = workflow_directory / "waiting"
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as generator:
            room = generator.generator.room()
            count = 6 if room is None else min(room, 6)
            tasks = [make_task(root, "sleep 200") for _ in range(count - 1)]
            tasks.append(make_task(root, "sleep 200", nproc=2))
            await generator.submit(tasks)
            await generator.generator.cancel([task.tag for task in tasks], grace_s=0.1)
            await generator.generator.cancel(["motoko-unknown-1-0123456789ab"])
            ends = await generator.ends(tasks)
            other = make_task(root, "exit 0")
            await generator.submit([other])
            assert is_good(await generator.end(other))
        assert {end.reason for end in ends} == {"CANCELLED"}, ends
