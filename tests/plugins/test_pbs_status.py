"""Reading `qstat -f` as PBS Pro, TORQUE and SLURM's own `qstat` write it."""

from __future__ import annotations

import pytest

from motoko_plugins.generators._pbs_status import attributes_of, seen
from motoko_plugins.generators._scheduler import Phase

PBS_PRO = """\
Job Id: 41.head
    Job_Name = mtk-aaa
    Job_Owner = jane@login1.cluster
    resources_used.walltime = 00:10:03
    job_state = F
    queue = workq
    Resource_List.walltime = 00:10:00
    comment = Job run at Sun Nov 22 at 22:09 on (n1:ncpus=1) and exceeded resourc
\te walltime
    Exit_status = -29
    Variable_List = PBS_O_HOME=/home/jane,PBS_O_PATH=/usr/bin:/bin,OPTION=a = b,
\tPBS_O_WORKDIR=/home/jane/study

Job Id: 42.head
    Job_Name = mtk-bbb
    job_state = R
"""

TORQUE = """\
Job Id: 7.master.cluster
    Job_Name = mtk-ccc
    resources_used.walltime = 00:00:14
    job_state = C
    exit_status = 0
    Resource_List.walltime = 01:00:00

Job Id: 8.master.cluster
    Job_Name = mtk-ddd
    job_state = Q
    Variable_List = PBS_O_QUEUE=batch,PBS_O_HOME=/home/jane,
\tPBS_O_LANG=C,
\tPBS_O_SHELL=/bin/bash
    euser = jane
"""

SLURM = """\
Job Id:\t1
\tJob_Name = mtk-eee
\tJob_Owner = jane@login1
\tjob_state = C
\tResource_List.walltime = 71582788:15:00

"""


def test_attributes_are_read_over_several_lines() -> None:
    jobs = attributes_of(PBS_PRO)
    assert list(jobs) == ["41.head", "42.head"]
    assert jobs["41.head"]["comment"].endswith("exceeded resource walltime")
    assert jobs["41.head"]["Variable_List"].endswith("OPTION=a = b,PBS_O_WORKDIR=/home/jane/study")
    assert attributes_of(TORQUE)["8.master.cluster"]["euser"] == "jane"
    assert attributes_of(SLURM)["1"]["job_state"] == "C"
    assert attributes_of("") == {}


def test_what_is_no_answer_of_qstat_is_refused() -> None:
    with pytest.raises(ValueError, match="'<Data><Job>"):
        attributes_of("<Data><Job><Job_Id>7.master</Job_Id></Job></Data>\n")


@pytest.mark.parametrize(
    ("letter", "phase"),
    [
        ("Q", Phase.WAITING),
        ("H", Phase.WAITING),
        ("W", Phase.WAITING),
        ("R", Phase.RUNNING),
        ("E", Phase.RUNNING),
        ("S", Phase.RUNNING),
        ("C", Phase.OVER),
        ("F", Phase.OVER),
        ("U", Phase.UNKNOWN),
        ("?", Phase.UNKNOWN),
    ],
)
def test_letters_are_phases(letter: str, phase: Phase) -> None:
    assert seen("7.master", {"job_state": letter}).phase is phase


def test_a_job_is_known_by_its_name_and_its_number() -> None:
    ((job_id, attributes),) = attributes_of(SLURM).items()
    job = seen(job_id, attributes)
    assert (job.name, job.index, job.job_id, job.record_job) == ("mtk-eee", None, "1", "1")
    assert seen("41.head", {}).job_id == "41.head"
    assert seen("41.head", {}).record_job == "41"


@pytest.mark.parametrize(
    ("attributes", "exit_code", "reason"),
    [
        ({"Exit_status": "0"}, 0, None),
        ({"exit_status": "3"}, 3, None),
        ({}, None, None),
        ({"exit_status": "271"}, -15, None),
        (
            {"exit_status": "265", "Resource_List.walltime": "0:01", "resources_used.walltime": "61"},
            -9,
            "TIMEOUT",
        ),
        (
            {"exit_status": "271", "Resource_List.walltime": "1:00:00", "resources_used.walltime": "59:59"},
            -15,
            None,
        ),
        ({"Exit_status": "-29"}, None, "TIMEOUT"),
        ({"exit_status": "-11"}, None, "TIMEOUT"),
        ({"Exit_status": "-27"}, None, "OUT_OF_MEMORY"),
        ({"Exit_status": "-1"}, None, "NODE_FAIL"),
        ({"Exit_status": "-99"}, None, None),
    ],
)
def test_the_exit_status_tells_why_a_job_has_ended(
    attributes: dict[str, str], exit_code: int | None, reason: str | None
) -> None:
    job = seen("7.master", {"job_state": "C", **attributes})
    assert (job.exit_code, job.reason) == (exit_code, reason)


def test_what_the_scheduler_says_besides_is_told() -> None:
    (job, _) = (seen(*item) for item in attributes_of(PBS_PRO).items())
    assert job.word == ("F (Job run at Sun Nov 22 at 22:09 on (n1:ncpus=1) and exceeded resource walltime)")
