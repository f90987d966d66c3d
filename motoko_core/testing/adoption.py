"""What a generator makes of the jobs of another one, whose launcher is gone."""

from __future__ import annotations

from pathlib import Path

from motoko_core.interfaces import exit_record_path
from motoko_core.testing.following import Following, is_good, make_task, until
from motoko_core.testing.subject import Subject, in_loop

__all__ = ["AdoptionTests"]

# When a test has failed, and its directory is gone, nothing stays behind.
_WAITS = "echo > started\nwhile [ -e started ] && [ ! -e go ]; do sleep 0.05; done\nexit 4"


class AdoptionTests(Subject):
    """Jobs that live, that have ended, that never began, and that are lost."""

    @in_loop
    async def test_jobs_of_a_generator_that_is_gone(self, workflow_directory: Path) -> None:
        root = workflow_directory / "adopt"
        live, cancelled = make_task(root, _WAITS), make_task(root, _WAITS)
        ended, unseen = make_task(root, "exit 5"), make_task(root, "exit 0")
        wiped = make_task(root, "exit 6")
        begun = [live, cancelled, ended, unseen, wiped]
        never = [make_task(root, "touch executed") for _ in range(3)]

        async with Following(self.make_generator(workflow_directory), self.timeout_s) as first:
            intents = dict(
                zip([t.tag for t in begun + never], first.generator.intents(begun + never), strict=True)
            )
            answers = await first.submit(begun)
            assert [answer.error for answer in answers.values() if answer.error] == []
            for task in (live, cancelled):
                await until((task.directory / "started").exists, "started", self.timeout_s)
            await first.ends([ended, unseen, wiped])
            first.leave()

        # The record is all that the job has left; without it, nobody may say that it went well.
        exit_record_path(wiped.directory, wiped.tag).unlink(missing_ok=True)
        for path in wiped.directory.iterdir():
            path.unlink()
        given = [(task, answers[task.tag].handle) for task in begun]
        given[3] = (unseen, intents[unseen.tag])  # the handle was never stored
        given += [(task, intents[task.tag]) for task in never[:2]]
        given.append((never[2], None))
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as second:
            followed = await second.adopt(given)
            # Of the one whose traces are wiped out, a generator may not know that it ever began.
            assert followed - {wiped.tag} == {task.tag for task in begun if task is not wiped}
            failed, good = await second.ends([ended, unseen])
            assert failed.exit_code == 5, failed
            assert is_good(good), good
            if wiped.tag in followed:
                lost = await second.end(wiped)
                assert lost.reason == "LOST" or lost.exit_code == 6, lost
            await second.generator.cancel([cancelled.tag], grace_s=0.1)
            assert (await second.end(cancelled)).reason == "CANCELLED"
            (live.directory / "go").touch()
            end = await second.end(live)
            assert end.exit_code == 4, end
            assert end.reason in (None, "EXIT_CODE"), end
        assert not any((task.directory / "executed").exists() for task in never)

    @in_loop
    async def test_a_job_that_ends_while_nobody_follows_it(self, workflow_directory: Path) -> None:
        root = workflow_directory / "alone"
        task = make_task(root, _WAITS.replace("exit 4", "echo > over; exit 4"))
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as first:
            (answer,) = (await first.submit([task])).values()
            await until((task.directory / "started").exists, "started", self.timeout_s)
            first.leave()
        (task.directory / "go").touch()
        await until((task.directory / "over").exists, "over", self.timeout_s)
        async with Following(self.make_generator(workflow_directory), self.timeout_s) as second:
            assert await second.adopt([(task, answer.handle)]) == {task.tag}
            end = await second.end(task)
        assert end.exit_code == 4, end
