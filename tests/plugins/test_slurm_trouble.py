"""The SLURM generator while sbatch, the controller or the launcher fail: each run is executed once."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from motoko_core.interfaces import exit_record_path, forbid_execution
from motoko_plugins.generators import _scheduler_submit
from tests.clusters.slurm import SlurmCluster
from tests.plugins.scheduling import Runs, following, patient, runs, slurm, until

__all__ = ["patient", "runs"]

#: Counts its executions.
COUNTS = "echo x >> ../executed-$(basename $PWD)\n"
WAITS = COUNTS + "until [ -e end ]; do sleep 0.1; done\n"


def executions(runs: Runs) -> list[int]:
    found = [path.read_text().count("x") for path in sorted(runs.root.glob("executed-*"))]
    return found + [0] * (runs.count - len(found))


@pytest.mark.parametrize(
    ("wrapper", "jobs"),
    [
        pytest.param({"after": "exit 1"}, 4, id="submits and fails"),
        pytest.param({"after": "sleep 600"}, 4, id="submits and hangs"),
        pytest.param({"before": "[ -e {root}/once ] || { touch {root}/once; exit 1; }"}, 4, id="fails once"),
        pytest.param(
            {"before": "[ -e {root}/once ] || { touch {root}/once; sleep 600; }"}, 4, id="hangs once"
        ),
        pytest.param(
            {"before": 'cat > {root}/$$; exec < {root}/$$; {real} "$@" > /dev/null; exec < {root}/$$'},
            8,
            id="submits twice",
        ),
    ],
)
async def test_each_run_is_executed_once_whatever_sbatch_does(
    slurm_cluster: SlurmCluster, runs: Runs, wrapper: dict[str, str], jobs: int
) -> None:
    values = {"root": str(runs.root), "real": "/usr/bin/sbatch"}
    for name, text in values.items():
        wrapper = {key: value.replace(f"{{{name}}}", text) for key, value in wrapper.items()}
    slurm_cluster.wrap("sbatch", **wrapper)
    slurm_cluster.wrap("scancel", before="exit 0")  # what is there twice begins twice, too
    batch = [runs(f"{COUNTS}exit {number}") for number in range(4)]
    generator = slurm(submit_timeout_s=1.5)
    async with following(generator) as ends:
        answers = await generator.submit(batch)
        assert [answer.error for answer in answers] == [None] * 4
        assert [end.exit_code for end in await ends(*batch)] == [0, 1, 2, 3]
    slurm_cluster.wait_for_jobs(lambda found: all(job[2] not in ("PENDING", "RUNNING") for job in found))
    assert executions(runs) == [1, 1, 1, 1]
    assert len(slurm_cluster.jobs()) == jobs


async def test_a_submission_that_always_fails_ends_in_the_end(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    slurm_cluster.wrap("sbatch", before="echo 'the moon is full' >&2; exit 1")
    task = runs(COUNTS)
    generator = slurm(lost_after_s=0.5)
    async with following(generator) as ends:
        assert (await generator.submit([task]))[0].error is None
        (end,) = await ends(task)
    assert (end.exit_code, end.reason) == (None, "SUBMIT")
    assert "the moon is full" in end.message
    assert len(slurm_cluster.calls("sbatch")) == 3
    assert exit_record_path(task.directory, task.tag).exists()  # it can never begin any more


#: What SLURM says of jobs that it refuses, which nobody can rely on.
REFUSES = "echo 'sbatch: error: Batch job submission failed: Unspecified error' >&2; exit 1"


@pytest.mark.usefixtures("patient")  # the refusal comes while it waits
@pytest.mark.parametrize("runs_per_job", [1, 3])
async def test_a_refused_job_that_has_begun_all_the_same_is_followed(
    slurm_cluster: SlurmCluster, runs: Runs, runs_per_job: int
) -> None:
    slurm_cluster.wrap(
        "sbatch", after=f"until [ -s {runs.root}/executed-run-1 ]; do sleep 0.05; done; {REFUSES}"
    )
    batch = [runs(f"{WAITS}exit 3"), *(runs(COUNTS) for _ in range(runs_per_job - 1))]
    generator = slurm(runs_per_job=runs_per_job)
    async with following(generator) as ends:
        assert {answer.error for answer in await generator.submit(batch)} == {None}
        (batch[0].directory / "end").touch()
        assert [end.exit_code for end in await ends(*batch)] == [3] + [0] * (runs_per_job - 1)
    assert executions(runs) == [1] * runs_per_job


async def test_a_refused_job_that_shows_after_all_executes_nothing(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    slurm_cluster.wrap("sbatch", before=f'"$real" --hold "$@"; {REFUSES}')
    batch = [runs(COUNTS), runs(COUNTS)]
    generator = slurm()
    async with following(generator):
        answers = await generator.submit(batch)
        assert all("Unspecified error" in (answer.error or "") for answer in answers)
        slurm_cluster.run("scontrol", "release", slurm_cluster.jobs()[0][0])
        slurm_cluster.wait_for_jobs(lambda found: {job[2] for job in found} == {"FAILED"})
    assert executions(runs) == [0, 0]


async def test_what_the_site_allows_no_more_of_is_submitted_later(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    # An array of more than two is too much; after three refusals, so is everything.
    refuse = "{ echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }"
    slurm_cluster.wrap("sbatch", before=f'[[ "$*" != *array=0-[2-9]* ]] || {refuse}')
    batch = [runs(COUNTS) for _ in range(5)]
    generator = slurm()
    async with following(generator) as ends:
        assert [answer.error for answer in await generator.submit(batch)] == [None] * 5
        assert {end.exit_code for end in await ends(*batch)} == {0}
    assert executions(runs) == [1] * 5


async def test_a_run_that_the_site_never_allows_keeps_no_other_back(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """SLURM's text for limits does not tell the number of jobs, which passes by, from the size of one."""
    text = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, size)"
    file = f"{runs.root}/script-$$"
    slurm_cluster.wrap(
        "sbatch",
        before=f"cat > {file}; exec < {file}; ! grep -q time=9 {file} || {{ echo '{text}' >&2; exit 1; }}",
    )
    large, *small = [runs(COUNTS, options={"slurm_options": ["time=9"]}), *(runs(COUNTS) for _ in range(9))]
    generator = slurm(max_jobs=20)
    async with following(generator) as ends:
        answers = await generator.submit([large, *small])
        assert [answer.error for answer in answers] == [None] * 10
        assert [end.exit_code for end in await ends(*small)] == [0] * 9
        assert sum("--array=0-8" in call for call in slurm_cluster.calls("sbatch")) == 1
        await until(lambda: generator.room() == 20)  # but for when it is just tried
        await generator.cancel([large.tag])
        assert [end.reason for end in await ends(large)] == ["CANCELLED"]


async def test_what_comes_after_a_run_that_is_never_allowed_is_submitted_soon(
    slurm_cluster: SlurmCluster,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_scheduler_submit, "_BACKOFF_S", (1000.0, 1000.0))
    text = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
    slurm_cluster.wrap("sbatch", before=f"echo '{text}' >&2; exit 1")
    refused, allowed = runs("", options={"slurm_options": ["time=9"]}), runs(COUNTS)
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit([refused])
        await until(lambda: "is tried again" in caplog.text)
        slurm_cluster.wrap("sbatch")
        monkeypatch.setattr(_scheduler_submit, "_BACKOFF_S", (0.01, 1000.0))
        await generator.submit([allowed])
        assert [end.exit_code for end in await ends(allowed)] == [0]


async def test_a_failure_does_not_wait_for_a_second_job_of_the_same_run(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    file = f"{runs.root}/script"
    twice = f'cat > {file}; "$real" --hold "$@" < {file} > {runs.root}/held; exec < {file}'
    slurm_cluster.wrap("sbatch", before=twice)
    task = runs(f"{COUNTS}exit 3")
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit([task])
        assert [(end.exit_code, end.reason) for end in await ends(task)] == [(3, None)]
    slurm_cluster.wait_for_jobs(lambda found: {job[2] for job in found} == {"FAILED", "CANCELLED"})
    assert executions(runs) == [1]


async def test_what_was_kept_from_beginning_is_handed_back(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    """Its launcher has ended before it could write why."""
    kept, waiting = (runs(COUNTS, options={"slurm_options": ["hold"]}) for _ in range(2))
    first, second = slurm(), slurm()
    async with following(first):
        answers = await first.submit([kept, waiting])
    assert forbid_execution(kept.directory, kept.tag)
    async with following(second) as ends:
        handles = [answer.handle for answer in answers]
        assert await second.adopt(list(zip([kept, waiting], handles, strict=True))) == {waiting.tag}
        # Of one that was out of reach just then, it is found out later.
        assert forbid_execution(waiting.directory, waiting.tag)
        assert [(end.reason, end.again) for end in await ends(waiting)] == [(None, True)]
        # Their jobs would wait for nothing.
        await until(lambda: {job[2] for job in slurm_cluster.jobs()} == {"CANCELLED"})


@pytest.mark.usefixtures("patient")
async def test_a_run_that_its_job_has_passed_by_is_not_launched_again(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """The next job could not enter its directory, either."""
    texts = (COUNTS, COUNTS, f"{COUNTS}exit 3")
    batch = [runs(text, options={"slurm_options": ["hold"]}) for text in texts]
    generator = slurm(runs_per_job=3)
    async with following(generator) as ends:
        (answer, *_) = await generator.submit(batch)
        shutil.rmtree(batch[1].directory)
        slurm_cluster.run("scontrol", "release", (answer.handle or {})["job"])
        assert [(end.exit_code, end.again) for end in await ends(*batch)] == [
            (0, False),
            (3, False),  # the job's
            (3, False),
        ]


@pytest.mark.usefixtures("patient")
async def test_a_run_whose_record_stays_empty_ends(slurm_cluster: SlurmCluster, runs: Runs) -> None:
    """Its job was killed when it had just made it."""
    first, *_ = batch = [runs(COUNTS, options={"slurm_options": ["hold"]}) for _ in range(3)]
    single = runs(WAITS)
    generator, later = slurm(runs_per_job=3, lost_after_s=1), slurm(lost_after_s=1)
    async with following(generator) as ends:
        (answer, *_) = await generator.submit(batch)
        exit_record_path(first.directory, first.tag).touch()
        slurm_cluster.run("scontrol", "release", (answer.handle or {})["job"])
        assert [(end.exit_code, end.again) for end in await ends(*batch)] == [
            (125, False),
            (0, False),
            (0, False),
        ]
        (answer,) = await generator.submit([single])
        await until(lambda: sum(executions(runs)) == 3)
    exit_record_path(single.directory, single.tag).write_text("")
    slurm_cluster.forget_jobs()
    async with following(later) as ends:
        assert await later.adopt([(single, answer.handle)]) == {single.tag}
        assert [(end.exit_code, end.reason) for end in await ends(single)] == [(None, "LOST")]
    assert executions(runs) == [1, 1, 1, 0]


async def test_a_controller_that_is_down_ends_nothing_and_loses_nothing(
    slurm_cluster: SlurmCluster, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    before, during = runs(WAITS), runs(COUNTS)
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit([before])
        await until(lambda: executions(runs)[0])
        slurm_cluster.stop_controller()
        (answer,) = await generator.submit([during])
        assert answer.error is None
        await until(lambda: "does not answer, its jobs are left" in caplog.text)
        (before.directory / "end").touch()
        assert [end.exit_code for end in await ends(before)] == [0]  # the exit record says so
        slurm_cluster.start_controller()
        assert [end.exit_code for end in await ends(during)] == [0]
    assert executions(runs) == [1, 1]
    assert caplog.text.count("does not answer") == 1


@pytest.mark.parametrize("known", ["the handle", "the intent"])
async def test_another_generator_goes_on_after_a_crash(
    slurm_cluster: SlurmCluster, runs: Runs, known: str
) -> None:
    batch = [runs(f"{WAITS}exit {number}") for number in range(3)]
    first, second = slurm(), slurm()
    async with following(first):
        intents = first.intents(batch)
        answers = await first.submit(batch)
        await until(lambda: executions(runs) == [1, 1, 1])
    handles: list[Any] = [answer.handle for answer in answers] if known == "the handle" else list(intents)
    (batch[0].directory / "end").touch()
    async with following(second) as ends:
        assert await second.adopt(list(zip(batch, handles, strict=True))) == {task.tag for task in batch}
        assert [end.exit_code for end in await ends(batch[0])] == [0]
        for task in batch:
            (task.directory / "end").touch()
        assert [end.exit_code for end in await ends(*batch)] == [0, 1, 2]
    assert executions(runs) == [1, 1, 1]


async def test_what_was_never_submitted_is_handed_back_and_never_begins(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    claimed, planned = runs(COUNTS), runs(COUNTS)
    first, second = slurm(), slurm()
    (intent,) = first.intents([planned])
    async with following(second):
        assert await second.adopt([(planned, intent), (claimed, None)]) == set()
    # The sbatch of the launcher that died comes through after all.
    async with following(first):
        await first.submit([planned])
        slurm_cluster.wait_for_jobs(lambda jobs: jobs and jobs[0][2] == "FAILED")
    assert executions(runs) == [0, 0]


async def test_what_may_have_been_submitted_while_the_controller_is_down_is_executed_once(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    submitted, planned = runs(WAITS), runs(COUNTS)
    first, second = slurm(), slurm(lost_after_s=0.5)
    intents = [*first.intents([submitted]), *first.intents([planned])]
    async with following(first):
        await first.submit([submitted])
        await until(lambda: executions(runs)[0])
    slurm_cluster.stop_controller()
    async with following(second) as ends:
        batch = [submitted, planned]
        assert await second.adopt(list(zip(batch, intents, strict=True))) == {task.tag for task in batch}
        slurm_cluster.start_controller()
        (submitted.directory / "end").touch()
        assert [end.exit_code for end in await ends(*batch)] == [0, 0]
    assert executions(runs) == [1, 1]


async def test_a_job_that_vanished_is_lost_unless_its_record_says_how_it_ended(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    # (Nobody tells that it was killed with its job.)
    ended, begun = runs(COUNTS), runs(f"{COUNTS}kill -9 $PPID\nsleep 600")
    waiting = runs("", options={"slurm_options": ["hold"]})
    batch = [ended, begun, waiting]
    first, second = slurm(), slurm(lost_after_s=1)
    async with following(first) as ends:
        answers = await first.submit(batch)
        await ends(ended)
        await until(lambda: executions(runs) == [1, 1, 0])
    slurm_cluster.forget_jobs()
    async with following(second) as ends:
        handles = [answer.handle for answer in answers]
        assert await second.adopt(list(zip(batch, handles, strict=True))) == {task.tag for task in batch}
        found = await ends(*batch)
    assert [(end.exit_code, end.reason) for end in found] == [(0, None), (None, "LOST"), (None, "LOST")]
    assert "that the run has begun" in found[1].message
    assert "nothing of the run" in found[2].message
    assert "the queue does not know" in found[2].message  # there is no accounting to ask


async def test_a_queue_that_tells_nothing_for_too_long_leaves_nothing_at_work_behind(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """Such a run may be executed again: its first execution must not go on beside that."""
    batch = [runs(WAITS), runs("", options={"slurm_options": ["hold"]})]
    generator = slurm(lost_after_s=1)
    async with following(generator) as ends:
        await generator.submit(batch)
        await until(lambda: executions(runs) == [1, 0])
        slurm_cluster.wrap("squeue", before="exit 0")
        assert [end.reason for end in await ends(*batch)] == ["LOST", "LOST"]
        await until(lambda: {job[2] for job in slurm_cluster.jobs()} == {"CANCELLED"})


async def test_a_submission_that_waits_for_room_goes_on_with_smaller_arrays(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """At the cluster's limit of jobs, sbatch tries for two minutes; an array is taken whole or not at all."""
    wait = "{ echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping' >&2; sleep 600; }"
    slurm_cluster.wrap("sbatch", before=f'[[ "$*" != *array=0-[2-9]* ]] || {wait}')
    batch = [runs(COUNTS) for _ in range(5)]
    generator = slurm(submit_timeout_s=1.0, lost_after_s=0.5)
    async with following(generator) as ends:
        assert [answer.error for answer in await generator.submit(batch)] == [None] * 5
        assert {end.exit_code for end in await ends(*batch)} == {0}
    assert executions(runs) == [1] * 5


async def test_a_job_whose_record_cannot_be_read_is_judged_when_it_can(
    slurm_cluster: SlurmCluster, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    task = runs(WAITS + "exit 7")
    record = exit_record_path(task.directory, task.tag)
    generator = slurm(lost_after_s=1000)
    async with following(generator) as ends:
        await generator.submit([task])
        await until(lambda: executions(runs) == [1])
        kept = record.rename(record.with_name("kept"))
        record.symlink_to(record)
        (task.directory / "end").touch()
        await until(lambda: "ended" in kept.read_text())
        await until(lambda: "out of reach" in caplog.text)
        slurm_cluster.wait_for_jobs(lambda found: all(job[2] not in ("PENDING", "RUNNING") for job in found))
        kept.rename(record)
        (end,) = await ends(task)
    assert (end.exit_code, end.reason, end.message) == (7, None, "")


async def test_a_run_that_has_begun_is_not_executed_again_when_its_record_cannot_be_read(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    """Its end is what the scheduler says of it."""
    task = runs(WAITS + "exit 7")
    record = exit_record_path(task.directory, task.tag)
    generator = slurm(lost_after_s=0.5)
    async with following(generator) as ends:
        await generator.submit([task])
        await until(lambda: generator._by_tag[task.tag].has_begun)
        kept = record.rename(record.with_name("kept"))
        record.symlink_to(record)
        (task.directory / "end").touch()
        (end,) = await ends(task)
        kept.rename(record)
    assert end.exit_code == 7
    assert executions(runs) == [1]


async def test_a_run_for_which_no_script_can_be_written_keeps_no_other_back(
    slurm_cluster: SlurmCluster, runs: Runs
) -> None:
    fine = runs(COUNTS)
    name = runs("", run_name="\ud800")
    number = runs("", options={"slurm_options": 10**5000})
    generator = slurm()
    async with following(generator) as ends:
        answers = await generator.submit([name, fine, number])
        assert [end.exit_code for end in await ends(fine)] == [0]
    assert "surrogates not allowed" in (answers[0].error or "")
    assert answers[1].error is None
    assert "cannot submit add.3" in (answers[2].error or "")


async def test_a_job_of_the_users_with_an_odd_name_hides_no_other(
    slurm_cluster: SlurmCluster, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "|", "two\n1|lines"):
        slurm_cluster.run("sbatch", "--hold", f"--job-name={name}", "--wrap=true")
    task = runs("exit 3")
    generator = slurm()
    async with following(generator) as ends:
        await generator.submit([task])
        assert [end.exit_code for end in await ends(task)] == [3]  # the queue had to say that it failed
    assert "does not answer" not in caplog.text
