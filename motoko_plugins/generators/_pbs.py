"""The language of PBS: job scripts, commands and their answers. Pure functions all of it.

One language for OpenPBS, PBS Pro, TORQUE, and the qsub, qstat and qdel that come with SLURM: what they have
in common, and no job arrays, which each writes in its own way.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

from motoko_core.interfaces import LaunchTask
from motoko_plugins.generators._job_script import body
from motoko_plugins.generators._pbs_options import PbsOptions, merge, names, run_options, words
from motoko_plugins.generators._pbs_status import attributes_of, number_of, seen
from motoko_plugins.generators._scheduler import Refusal, Request, Scheduler, Seen, Submission
from motoko_plugins.generators._slurm import limit_of

#: Job names have at most 15 characters in old PBS, which is why they are short.
_PREFIX = "mtk-"
#: What users say themselves of the size of their jobs.
_SIZES = {f"l.{name}" for name in ("nodes", "select", "ncpus", "procs", "place", "mppwidth", "vnode", "host")}
#: Where the output goes is said on the command line: SLURM's qsub does not read that in scripts.
_OUTPUT = "oejkR"
#: qstat's exit code for "there is no such job"; SLURM's has it for an empty queue, too.
_UNKNOWN_JOB = 153

_LIMITS = re.compile(
    r"number of jobs already in queue|would exceed|exceeds the queue limit|MaxSubmitJob|GrpSubmitJob|"
    r"MaxJobCount|temporarily unable|try again",
    re.IGNORECASE,
)
_OUT_OF_REACH = re.compile(
    r"cannot connect|Connection (refused|reset)|Communication failure|pbs_iff|trqauthd|"
    r"Invalid credential|End of File|Premature end of message|background qsub|no server|"
    r"contact slurm controller|connect failure|authentication|munge|No route to host|"
    r"timed out|too busy|retry|now in progress|internal (server )?error",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"qsub: |Batch job submission failed: |unrecognized option|invalid option|sbatch: (error|fatal): ",
    re.IGNORECASE,
)
#: Of the environment: what a job knows of itself, should this be one.
_OF_A_JOB = re.compile(r"PBS_(?!DEFAULT|SERVER|CONF|EXEC|HOME)|SLURM_(?!CONF)|SLURMD_|BASH_FUNC_")


class Pbs(Scheduler):
    """OpenPBS and its relatives."""

    title: ClassVar[str] = "PBS"
    submit_program: ClassVar[str] = "qsub"
    script_is_file: ClassVar[bool] = True
    settings: PbsOptions

    def new_name(self) -> str:
        """A name of 15 characters."""
        return f"{_PREFIX}{uuid.uuid4().hex[:11]}"

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Leave out what this job, if we are one, knows of itself; and functions, which break old PBS."""
        return {name: value for name, value in environment.items() if not _OF_A_JOB.match(name)}

    def request(self, task: LaunchTask) -> Request:
        """Join the options: the generator's, its task manager's, the run's, the last of a name wins."""
        settings = task.settings or self.settings
        own = run_options(task.options.get("pbs_options"), f"pbs_options of {task.task}")
        options = merge(self.settings.options, settings.options, own)
        given = {name for option in options for name in names(option)}
        ours = ["-V"]
        if "r" not in given:
            ours.append("-r n")
        if settings.walltime and "l.walltime" not in given:
            ours.append(f"-l walltime={settings.walltime}")
        if not given & _SIZES:
            ours.append(f"-l nodes={task.nproc}")  # as BlackDynamite writes it
        return Request(
            options=(*ours, *options),
            nproc=task.nproc,
            modules=settings.module or self.settings.module,
            runs_per_job=settings.runs_per_job,
        )

    def script(self, submission: Submission) -> str:
        """Directives, then what is executed; qsub takes no directive after the first command."""
        options = [option for option in submission.request.options if option[1] not in _OUTPUT]
        head = "".join(f"#PBS {option}\n" for option in options)
        (index,) = submission.elements
        rest = body(
            submission.elements,
            job="${motoko_job%%.*}",
            index=str(index),
            submit_directory="PBS_O_WORKDIR",
            modules=submission.request.modules,
        )
        return f"#!/bin/bash\n{head}\nmotoko_job=${{PBS_JOBID:-$SLURM_JOB_ID}}\n{rest}"

    def submit_command(self, submission: Submission) -> list[str]:
        """The name goes here, since it would not win over the one of a directive otherwise."""
        command = ["qsub", "-N", submission.name]
        output = [option for option in submission.request.options if option[1] in _OUTPUT]
        for option in output or ["-j oe", "-o /dev/null"]:
            command += words(option)
        return command

    def submitted_id(self, output: str) -> str:
        """Read ``12.server``, in the last line: sites may print others before."""
        match = re.fullmatch(r"(\d+)(\.\S+)?", (output.strip().split("\n") or [""])[-1].strip())
        return match[1] if match else ""

    def refusal(self, code: int | None, errors: str) -> Refusal:
        """Tell by the messages: exit codes differ from version to version."""
        if _LIMITS.search(errors):
            return Refusal.LIMIT
        if limit := limit_of(errors):
            return limit
        if _OUT_OF_REACH.search(errors):
            return Refusal.UNREACHABLE
        return Refusal.PERMANENT if code and _REFUSED.search(errors) else Refusal.UNKNOWN

    def element_id(self, job_id: str, index: int, *, is_array: bool) -> str:
        """The number, which the default server knows."""
        return job_id

    def status_command(self) -> list[str]:
        """All jobs: qstat tells their whole names with ``-f`` only, and takes no user's name with it."""
        return ["qstat", "-f"]

    def is_answer(self, code: int | None, output: str, errors: str) -> bool:
        """Accept that there is no job, too."""
        return code in (0, _UNKNOWN_JOB)

    def parse_status(self, output: str) -> list[Seen]:
        """Read one paragraph for each job."""
        jobs = attributes_of(output)
        return [
            seen(number_of(job_id), attributes)
            for job_id, attributes in jobs.items()
            if attributes.get("Job_Name", "").startswith(_PREFIX)
        ]

    def history_command(self, job_ids: Sequence[str]) -> list[str]:
        """Ask PBS Pro, which tells of ended jobs with ``-x``; TORQUE means XML by that, SLURM nothing."""
        return ["qstat", "-x", "-f", *sorted({number_of(job_id) for job_id in job_ids})]

    def parse_history(self, output: str) -> list[Seen]:
        """Read what :meth:`parse_status` reads; TORQUE tells of ended jobs there already."""
        return [] if output.lstrip().startswith("<") else self.parse_status(output)

    def cancel_command(self, job_ids: Sequence[str], name: str | None = None) -> list[str]:
        """Signal TERM, after the site's delay KILL."""
        return ["qdel", *job_ids]
