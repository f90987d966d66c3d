"""PBS's language: job scripts, commands, answers. (tests/slurm/test_pbs.py has it spoken for real.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import EXECUTE, LaunchTask
from motoko_plugins.generators._pbs import Pbs
from motoko_plugins.generators._pbs_options import PbsOptions
from motoko_plugins.generators._scheduler import Phase, Refusal, Submission
from motoko_plugins.generators.pbs import PbsGenerator

GOLDEN = """\
#!/bin/bash
#PBS -V
#PBS -r n
#PBS -l nodes=16
#PBS -q long
#PBS -l walltime=1:00:00

motoko_job=${PBS_JOBID:-$SLURM_JOB_ID}
motoko_warned=
...
motoko_modules gcc 'mpi/4 beta' > "$motoko_messages" 2>&1; then
    motoko_failed=$(cat -- "$motoko_messages" 2>/dev/null)
    motoko_failed=${motoko_failed:-motoko: the environment modules cannot be loaded on $HOSTNAME}
fi
rm -f -- "$motoko_messages"

motoko_job="${motoko_job%%.*}"
case 0 in
0)
    motoko_run motoko-add-7-0 '/a b/run-7' launch.sh '/a b/run-7/wf.o7' '/a b/run-7/wf.e7'
    motoko_run motoko-add-8-0 '/a b/run-8' launch.sh '/a b/run-8/wf.o8' '/a b/run-8/wf.e8'
    ;;
esac
exit "$motoko_code"
"""


def make_task(run_id: int, **changes: Any) -> LaunchTask:
    values: dict[str, Any] = {
        "tag": f"motoko-add-{run_id}-0",
        "task": f"add.{run_id}",
        "run_id": run_id,
        "run_name": "wf",
        "directory": Path(f"/a b/run-{run_id}"),
        "script": "launch.sh",
    }
    return LaunchTask(**(values | changes))


def submission(pbs: Pbs, *tasks: LaunchTask) -> Submission:
    return Submission(name="mtk-0123456789a", request=pbs.request(tasks[0]), elements={0: tasks})


def directives(pbs: Pbs, task: LaunchTask) -> list[str]:
    return [line for line in pbs.script(submission(pbs, task)).splitlines() if line.startswith("#PBS")]


def test_the_job_script() -> None:
    pbs = Pbs(PbsOptions(options=["-q long", "-l walltime=1:00:00"], module=["gcc", "mpi/4 beta"]))
    script = pbs.script(submission(pbs, make_task(7, nproc=16), make_task(8, nproc=16)))
    # What is the same in the scripts of all schedulers is tested with them.
    head, _, rest = script.partition(EXECUTE)
    assert f"{head.rstrip()}\n...\n{rest[rest.index('motoko_modules gcc') :]}" == GOLDEN


def test_the_command() -> None:
    pbs = Pbs(PbsOptions())
    command = ["qsub", "-N", "mtk-0123456789a"]
    assert pbs.submit_command(submission(pbs, make_task(7))) == [*command, "-j", "oe", "-o", "/dev/null"]
    pbs = Pbs(PbsOptions(options=["-q long", '-o "my file"']))
    assert pbs.submit_command(submission(pbs, make_task(7))) == [*command, "-o", "my file"]
    assert not any("my file" in line for line in directives(pbs, make_task(7)))


def test_what_blackdynamite_wrote_is_asked_for_unless_the_options_say_otherwise() -> None:
    ours = ["#PBS -V", "#PBS -r n"]
    assert directives(Pbs(PbsOptions()), make_task(7, nproc=3)) == [
        *ours, "#PBS -l walltime=48:00:00", "#PBS -l nodes=3"
    ]  # fmt: skip
    options = ["-l select=1:ncpus=3,walltime=60", "-r y"]
    assert directives(Pbs(PbsOptions(options=options)), make_task(7, nproc=3)) == [
        "#PBS -V", "#PBS -l select=1:ncpus=3,walltime=60", "#PBS -r y"
    ]  # fmt: skip
    assert directives(Pbs(PbsOptions(walltime="none")), make_task(7)) == [*ours, "#PBS -l nodes=1"]


def test_the_options_of_the_task_manager_and_of_the_run_win() -> None:
    pbs = Pbs(PbsOptions(options=["-q short", "-l walltime=1:00", "-A us"], module="gcc"))
    task = make_task(
        7,
        settings=PbsOptions(options=["-l walltime=2:00"], runs_per_job=4),
        options={"pbs_options": ["-q long"]},
    )
    assert directives(pbs, task)[3:] == ["#PBS -A us", "#PBS -l walltime=2:00", "#PBS -q long"]
    request = pbs.request(task)
    assert (request.runs_per_job, request.modules) == (4, ("gcc",))
    with pytest.raises(ConfigError, match=r"pbs_options of add\.7"):
        pbs.request(make_task(7, options={"pbs_options": ["long"]}))


@pytest.mark.parametrize(
    ("output", "job"),
    [
        ("12.master.cluster\n", "12"),
        ("Welcome!\n12\n", "12"),
        ("12[].master\n", ""),
        ("", ""),
        ("There was an error running the Slurm sbatch command.\n", ""),
    ],
)
def test_the_id_of_a_submitted_job(output: str, job: str) -> None:
    assert Pbs(PbsOptions()).submitted_id(output) == job


@pytest.mark.parametrize(
    ("code", "errors", "refusal"),
    [
        (1, "qsub: Unknown queue", Refusal.PERMANENT),
        (184, "qsub: Job exceeds queue resource limits", Refusal.PERMANENT),
        (1, "sbatch: error: Batch job submission failed: Invalid account", Refusal.PERMANENT),
        (228, "qsub: Maximum number of jobs already in queue", Refusal.LIMIT),
        (38, "qsub: would exceed queue generic's per-user limit", Refusal.LIMIT),
        (111, "qsub: cannot connect to server master (errno=111)", Refusal.UNREACHABLE),
        (171, "qsub: Invalid credential", Refusal.UNREACHABLE),
        (
            1,
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller",
            Refusal.UNREACHABLE,
        ),
        (
            1,
            "qsub: submit error (Pbs Server is currently too busy to service this request. Please retry this "
            "request.)",
            Refusal.UNREACHABLE,
        ),
        (115, "qsub: Operation now in progress", Refusal.UNREACHABLE),
        (15, "qsub: Internal server error occurred", Refusal.UNREACHABLE),
        (13, "qsub: submit error (PBS server internal error)", Refusal.UNREACHABLE),
        (110, "qsub: Request timed out", Refusal.UNREACHABLE),
        (None, "no answer within 60 s", Refusal.UNKNOWN),
        (0, "", Refusal.UNKNOWN),
        (1, "", Refusal.UNKNOWN),
    ],
)
def test_what_a_failed_submission_means(code: int | None, errors: str, refusal: Refusal) -> None:
    assert Pbs(PbsOptions()).refusal(code, errors) is refusal


def test_jobs_are_told_by_their_names() -> None:
    pbs = Pbs(PbsOptions())
    name = pbs.new_name()
    assert len(name) == 15  # more than that is too long for some
    output = (
        f"Job Id: 7.head\n    Job_Name = {name}\n    job_state = R\n\nJob Id: 8.head\n    Job_Name = other\n"
    )
    (job,) = pbs.parse_status(output)
    assert (job.name, job.job_id, job.record_job, job.phase) == (name, "7", "7", Phase.RUNNING)
    assert pbs.is_answer(153, "", "")
    assert not pbs.is_answer(1, "", "qstat: cannot connect to server")


def test_jobs_that_have_ended_are_asked_for_where_that_is_possible() -> None:
    pbs = Pbs(PbsOptions())
    assert pbs.history_command(["12", "9"]) == ["qstat", "-x", "-f", "12", "9"]
    (job,) = pbs.parse_history(
        "Job Id: 7.head\n    Job_Name = mtk-a\n    job_state = F\n    Exit_status = -29\n"
    )
    assert (job.phase, job.reason) == (Phase.OVER, "TIMEOUT")
    assert pbs.parse_history("<Data><Job>...</Job></Data>") == []
    assert pbs.cancel_command(["7", "8"]) == ["qdel", "7", "8"]


def test_jobs_do_not_inherit_what_this_one_knows_of_itself() -> None:
    environment = {
        "PATH": "/bin",
        "PBS_JOBID": "1.head",
        "PBS_O_WORKDIR": "/home",
        "PBS_DEFAULT": "head",
        "PBS_CONF_FILE": "/etc/pbs.conf",
        "SLURM_JOB_ID": "1",
        "SLURM_CONF": "/etc/slurm.conf",
        "BASH_FUNC_module%%": "() { :; }",
    }
    assert Pbs(PbsOptions()).environment(environment).keys() == {
        "PATH", "PBS_DEFAULT", "PBS_CONF_FILE", "SLURM_CONF"
    }  # fmt: skip


def test_without_qsub_the_generator_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="'qsub', which submits jobs, is not on the PATH"):
        PbsGenerator(PbsOptions())
