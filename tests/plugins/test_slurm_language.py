"""What is said to SLURM, and how its answers are read; no cluster is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import EXECUTE, LaunchTask
from motoko_plugins.generators._scheduler import Phase, Refusal, Submission
from motoko_plugins.generators._slurm import Slurm, array_of, state
from motoko_plugins.generators._slurm_options import SlurmOptions, directive, option_name

GOLDEN = Path(__file__).parent / "golden"


def task(number: int, **changes: Any) -> LaunchTask:
    values: dict[str, Any] = {
        "tag": f"motoko-add-{number}-0123456789ab",
        "task": f"add.{number}",
        "run_id": number,
        "run_name": "wf",
        "directory": Path(f"/data/BD-add-runs/run-{number}"),
        "script": "launch.sh",
    }
    return LaunchTask(**(values | changes))


def submission(options: SlurmOptions, elements: Mapping[int, list[LaunchTask]]) -> tuple[Slurm, Submission]:
    slurm = Slurm(options)
    first = next(iter(elements.values()))[0]
    return slurm, Submission(name="motoko-0123", request=slurm.request(first), elements=elements)


# ---------------------------------------------------------------------- scripts


@pytest.mark.parametrize(
    ("name", "options", "elements"),
    [
        ("slurm_one", {}, {0: [task(7)]}),
        (
            "slurm_array",
            {"options": ["time=1:00:00", "-p debug"], "module": ["gcc/12", "openmpi"], "runs_per_job": 2},
            {
                0: [task(1, nproc=4), task(2, nproc=4)],
                1: [task(3, nproc=4, directory=Path("/data/it's\n#SBATCH --array=0-9"), script="a b.sh")],
            },
        ),
        (
            "slurm_no_warning",
            {"options": "ntasks=2", "signal": "none", "requeue": True},
            {4: [task(5, nproc=8)]},
        ),
    ],
)
def test_scripts_are_as_they_were_looked_over(
    name: str, options: Mapping[str, Any], elements: Mapping[int, list[LaunchTask]]
) -> None:
    slurm, given = submission(SlurmOptions(**options), elements)
    script = slurm.script(given).replace(EXECUTE, "# motoko_execute\n")
    assert script == (GOLDEN / f"{name}.sh").read_text()


def test_no_directive_comes_after_the_head() -> None:
    slurm, given = submission(SlurmOptions(), {0: [task(1, directory=Path("/a\n#SBATCH --hold"))]})
    head, _, rest = slurm.script(given).partition("\n\n")
    assert "#SBATCH --output=/dev/null" in head.splitlines()
    assert not [line for line in rest.splitlines() if line.startswith("#SBATCH")]


def test_commands() -> None:
    slurm, one = submission(SlurmOptions(), {0: [task(1)]})
    assert slurm.submit_command(one) == ["sbatch", "--parsable", "--job-name=motoko-0123"]
    _, some = submission(SlurmOptions(), {2: [task(1)], 3: [task(2)], 7: [task(3)]})
    assert slurm.submit_command(some)[-1] == "--array=2-3,7"
    _, last = submission(SlurmOptions(), {5: [task(1)]})
    assert slurm.submit_command(last)[-1] == "--array=5"
    assert slurm.status_command()[:3] == ["squeue", f"--user={os.getuid()}", "--noheader"]
    assert slurm.cancel_command(["12", "13_4"]) == ["scancel", "--quiet", "12", "13_4"]
    assert slurm.cancel_command(["12"], "motoko-1") == ["scancel", "--quiet", "--name=motoko-1", "12"]
    assert "--jobs=12,13_4" in slurm.history_command(["12", "13_4"])
    assert array_of([3, 1, 2, 9]) == "1-3,9"


def test_the_environment_of_a_job_is_not_handed_on() -> None:
    given = {
        **{"PATH": "/bin", "SLURM_CONF": "c", "SBATCH_ACCOUNT": "a"},
        **{"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SQUEUE_STATES": "R", "SBATCH_WAIT": "1"},
        **{"SBATCH_ARRAY_INX": "0-9", "SLURM_CLUSTERS": "other"},
    }
    assert Slurm(SlurmOptions()).environment(given) == {
        "PATH": "/bin",
        "SLURM_CONF": "c",
        "SBATCH_ACCOUNT": "a",
    }


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("output", "job_id"),
    [
        ("12\n", "12"),
        ("12;cluster\n", "12"),
        ("welcome to the site\n12\n", "12"),
        ("", ""),
        ("12", ""),
        ("x\n", ""),
    ],
)
def test_the_id_of_a_job(output: str, job_id: str) -> None:
    assert Slurm(SlurmOptions()).submitted_id(output) == job_id


@pytest.mark.parametrize(
    ("errors", "refusal"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", Refusal.PERMANENT),
        ("sbatch: error: Memory specification can not be satisfied", Refusal.PERMANENT),
        ("sbatch: error: Invalid generic resource (gres) specification", Refusal.PERMANENT),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job "
            "violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Refusal.LIMIT,
        ),
        (
            "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job "
            "violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Refusal.PERMANENT,
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
            "limit, user's size and/or time limits)",
            Refusal.LIMIT,
        ),
        (
            "sbatch: error: QOSMaxMemoryPerJob\nsbatch: error: Batch job submission failed: Job "
            "violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Refusal.PERMANENT,
        ),
        ("sbatch: error: AssocMaxSubmitJobLimit\n", Refusal.LIMIT),
        ("sbatch: error: AssocGrpSubmitJobsLimit\n", Refusal.LIMIT),
        ("sbatch: Slurm temporarily unable to accept job, sleeping and retrying", Refusal.LIMIT),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect "
            "failure)",
            Refusal.UNREACHABLE,
        ),
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            Refusal.UNREACHABLE,
        ),
        ("sbatch: error: Batch job submission failed: Unexpected message received", Refusal.UNREACHABLE),
        ("sbatch: error: Batch job submission failed: Message receive failure", Refusal.UNREACHABLE),
        ("sbatch: error: Batch job submission failed: Insane message length", Refusal.UNREACHABLE),
        ("", Refusal.UNKNOWN),
        ("Segmentation fault", Refusal.UNKNOWN),
    ],
)
def test_what_a_refusal_means(errors: str, refusal: Refusal) -> None:
    assert Slurm(SlurmOptions()).refusal(1, errors) is refusal


def test_a_mistake_in_an_option_is_not_tried_again() -> None:
    slurm = Slurm(SlurmOptions())
    assert slurm.refusal(255, 'sbatch: error: "many" is not a valid node count') is Refusal.PERMANENT
    assert slurm.refusal(1, "sbatch: unrecognized option") is Refusal.UNKNOWN
    assert slurm.refusal(None, "no answer within 60 s") is Refusal.UNKNOWN


@pytest.mark.parametrize(
    ("word", "phase", "reason"),
    [
        ("PENDING", Phase.WAITING, None),
        ("REQUEUE_HOLD", Phase.WAITING, None),
        ("CONFIGURING", Phase.WAITING, None),
        ("RUNNING", Phase.RUNNING, None),
        ("COMPLETING", Phase.RUNNING, None),
        ("SUSPENDED", Phase.RUNNING, None),
        ("COMPLETED", Phase.OVER, None),
        ("FAILED", Phase.OVER, None),
        ("TIMEOUT", Phase.OVER, "TIMEOUT"),
        ("DEADLINE", Phase.OVER, "TIMEOUT"),
        ("OUT_OF_MEMORY", Phase.OVER, "OUT_OF_MEMORY"),
        ("OUT_OF_ME+", Phase.UNKNOWN, None),
        ("NODE_FAIL", Phase.OVER, "NODE_FAIL"),
        ("BOOT_FAIL", Phase.OVER, "NODE_FAIL"),
        ("PREEMPTED", Phase.OVER, "PREEMPTED"),
        ("CANCELLED by 1000", Phase.OVER, "CANCELLED"),
        ("CANCELLED+", Phase.OVER, "CANCELLED"),
        ("REVOKED", Phase.OVER, "CANCELLED"),
        ("DREAMING", Phase.UNKNOWN, None),
        ("", Phase.UNKNOWN, None),
    ],
)
def test_states(word: str, phase: Phase, reason: str | None) -> None:
    assert state(word) == (phase, reason)


def test_the_queue() -> None:
    output = (
        "12|3|15|RUNNING|0|None|motoko-ab|\n"
        "13|N/A|13|PENDING|0|Resources|motoko-cd|\n"
        "14|0|14|FAILED|768|NonZeroExitCode|motoko-ef|\n"
        "14|1|16|FAILED|9|JobLaunchFailure|motoko-ef|\n"
        "17|N/A|17|TIMEOUT|4294967294|TimeLimit|motoko-gh|\n"
        "18|N/A|18|RUNNING|0|None|some|body's motoko-job|\n"
    )
    seen = Slurm(SlurmOptions()).parse_status(output)
    assert [(s.name, s.index, s.job_id, s.record_job) for s in seen] == [
        ("motoko-ab", 3, "12_3", "12_3"),
        ("motoko-cd", None, "13", "13_0"),
        ("motoko-ef", 0, "14_0", "14_0"),
        ("motoko-ef", 1, "14_1", "14_1"),
        ("motoko-gh", None, "17", "17_0"),
    ]
    assert [(s.phase, s.exit_code, s.word) for s in seen[2:]] == [
        (Phase.OVER, 3, "FAILED"),
        (Phase.OVER, None, "FAILED (JobLaunchFailure)"),
        (Phase.OVER, None, "TIMEOUT (TimeLimit)"),
    ]
    assert seen[3].reason == "NODE_FAIL"  # the script never began
    odd = "19|N/A|19|PENDING|0|None||\n20|N/A|20|PENDING|0|None|x\n5||\n21|N/A|21|PENDING|0|None||||\n"
    assert Slurm(SlurmOptions()).parse_status(odd + output) == seen
    news = "Maintenance on Monday!\n"
    assert Slurm(SlurmOptions()).parse_status(news + output) == seen
    with pytest.raises(ValueError, match="'Maintenance on Monday!', which is no line"):
        Slurm(SlurmOptions()).parse_status(news)
    with pytest.raises(ValueError, match="not enough values"):
        Slurm(SlurmOptions()).parse_status("12|3|15|RUNN\n")


def test_the_accounting() -> None:
    output = "12_3|FAILED|3:0\n13|CANCELLED by 0|0:15\n14_[0-9]|CANCELLED by 0|0:0\n15|COMPLETED|0:0\n"
    seen = Slurm(SlurmOptions()).parse_history(output)
    assert [(s.record_job, s.exit_code, s.reason) for s in seen] == [
        ("12_3", 3, None),
        ("13_0", -15, "CANCELLED"),
        ("15_0", 0, None),
    ]


def test_the_largest_array() -> None:
    slurm = Slurm(SlurmOptions())
    assert slurm.parse_limit("A = 1\nMaxArraySize            = 1001\n") == 1001
    assert slurm.parse_limit("MaxArraySize            = 0\n") == 1
    assert slurm.parse_limit("") is None
    assert Slurm(SlurmOptions(max_array_size=5)).limit_command() is None


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("given", "read", "name"),
    [
        ("time=1:00:00", "--time=1:00:00", "time"),
        ("--time 1:00:00", "--time=1:00:00", "time"),
        ("--time=1:00:00", "--time=1:00:00", "time"),
        ("-t 1:00", "-t 1:00", "time"),
        ("-pdebug", "-pdebug", "partition"),
        (" exclusive ", "--exclusive", "exclusive"),
        ('comment="a b"', '--comment="a b"', "comment"),
    ],
)
def test_an_option_is_written_in_several_ways(given: str, read: str, name: str) -> None:
    assert directive(given) == read
    assert option_name(read) == name


@pytest.mark.parametrize(
    "given", ["", "--", "= 3", "time=1\nhold", {"time": 1}, "array=0-3", "--wrap=x", "-W", "-a 1"]
)
def test_what_is_no_option_is_refused(given: object) -> None:
    with pytest.raises(ConfigError) as raised:
        directive(given)
    assert raised.value.hint


def test_later_options_of_a_name_win() -> None:
    settings = SlurmOptions.from_strings(["time=10", "-p a", "job-name=mine", "--partition=b", "time=20"])
    run = task(1, settings=settings, options={"slurm_options": ["-t 30", "qos=high"]})
    options = Slurm(SlurmOptions(options="time=1")).request(run).options
    assert [option for option in options if "signal" not in option] == [
        "--output=/dev/null",
        "--no-requeue",
        "--partition=b",
        "-t 30",
        "--qos=high",
    ]


@pytest.mark.parametrize("value", ["time=5", ["time=5"], ("--time=5",), {"time": 5}])
def test_a_runs_options_have_several_forms(value: object) -> None:
    options = Slurm(SlurmOptions()).request(task(1, options={"slurm_options": value})).options
    assert "--time=5" in options


def test_a_runs_options_that_are_none_name_the_run() -> None:
    with pytest.raises(ConfigError, match=r"slurm_options of add\.1"):
        Slurm(SlurmOptions()).request(task(1, options={"slurm_options": 5}))


@pytest.mark.parametrize("options", [["ntasks=2"], ["-N 3"], ["cpus-per-task=4"], ["exclusive"]])
def test_nproc_yields_to_what_users_say_themselves(options: list[str]) -> None:
    assert "--ntasks=8" not in Slurm(SlurmOptions(options=options)).request(task(1, nproc=8)).options
    assert "--ntasks=8" in Slurm(SlurmOptions()).request(task(1, nproc=8)).options


@pytest.mark.parametrize(
    "settings",
    [
        *({"runs_per_job": 0}, {"runs_per_job": "50"}, {"max_jobs": True}, {"poll_interval_s": 0}),
        *({"submit_timeout_s": "1m"}, {"lost_after_s": -1}, {"signal": "soon"}, {"requeue": "yes"}),
        *({"max_array_size": 0}, {"options": 5}),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings)) if "options" not in settings else "neither"):
        SlurmOptions(**settings)


def test_a_setting_in_the_list_form_is_told_from_an_option() -> None:
    with pytest.raises(ConfigError, match="a setting of Motoko's") as raised:
        SlurmOptions.from_strings(["runs_per_job=50"])
    assert "slurm_options: {runs_per_job:" in str(raised.value)
    assert SlurmOptions(module="gcc openmpi").module == ("gcc", "openmpi")
