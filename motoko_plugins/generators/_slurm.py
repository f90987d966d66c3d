"""SLURM's language: job scripts, commands and their answers. Pure functions all of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from motoko_core.interfaces import LaunchTask
from motoko_plugins.generators._job_script import body
from motoko_plugins.generators._scheduler import Phase, Refusal, Request, Scheduler, Seen, Submission
from motoko_plugins.generators._slurm_options import SlurmOptions, merge, option_name, run_options

#: Options by which users say themselves what their runs get of the machine.
_SIZES = {
    *("ntasks", "nodes", "cpus-per-task", "ntasks-per-node", "nodefile", "nodelist", "extra-node-info"),
    *("ntasks-per-core", "ntasks-per-socket", "ntasks-per-gpu", "exclusive"),
}

_RUNNING = {
    *("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
}
_WAITING = {
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"),
    *("SPECIAL_EXIT", "POWER_UP_NODE"),
}
_OVER = {
    **{"COMPLETED": None, "FAILED": None, "TIMEOUT": "TIMEOUT", "DEADLINE": "TIMEOUT"},
    **{"OUT_OF_MEMORY": "OUT_OF_MEMORY", "PREEMPTED": "PREEMPTED", "CANCELLED": "CANCELLED"},
    **{"REVOKED": "CANCELLED", "NODE_FAIL": "NODE_FAIL", "BOOT_FAIL": "NODE_FAIL"},
    **{"LAUNCH_FAILED": "NODE_FAIL", "RECONFIG_FAIL": "NODE_FAIL"},
}

_LIMITS = re.compile(r"MaxSubmitJob|GrpSubmitJob|MaxJobCount|temporarily unable|try again", re.IGNORECASE)
#: SLURM has one text for all limits of accounts and QOS, and may name the one before: of these, only the
#: number of jobs passes by.
_ANY_LIMIT = re.compile(r"job submit limit", re.IGNORECASE)
_TOO_LARGE = re.compile(r"\b(QOS|Assoc)(?!\w*(SubmitJob|MaxJobs|GrpJobs))(Max|Min|Grp)\w+")
_OUT_OF_REACH = re.compile(
    r"contact slurm controller|Socket timed out|connect failure|standby mode|Connection refused|Zero Bytes|"
    r"Transport endpoint|Communication connection|authentication|munge|Connection reset|Connection timed out|"
    r"Unable to establish|No route to host|configuration source|Communication shutdown|Header lengths|"
    r"Unexpected message|Message (send|receive) failure|message length",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"Batch job submission failed: |^sbatch: (error|fatal): (invalid|memory)", re.I | re.M)


def state(word: str) -> tuple[Phase, str | None]:
    """Return what a state of SLURM's means, and the reason if the job is over; ``CANCELLED by 7`` is one."""
    first = (word.split() or [""])[0].rstrip("+").upper()
    if first in _OVER:
        return Phase.OVER, _OVER[first]
    if first in _RUNNING:
        return Phase.RUNNING, None
    return (Phase.WAITING if first in _WAITING else Phase.UNKNOWN), None


def limit_of(errors: str) -> Refusal | None:
    """What SLURM means that refuses a job because of the limits of an account or QOS; None: it does not."""
    if _TOO_LARGE.search(errors):
        return Refusal.PERMANENT
    return Refusal.LIMIT if _ANY_LIMIT.search(errors) else None


def _exit_code(wait_status: str) -> int | None:
    try:
        return os.waitstatus_to_exitcode(int(wait_status))
    except (ValueError, OverflowError):  # SLURM has values of its own for "none yet"
        return None


#: `B`: to the job's shell; without it SLURM warns the processes that srun has started.
_WARNING = re.compile(r"--signal=R?B?R?B:(?:SIG)?([A-Z0-9]+)(@\d+)?", re.IGNORECASE)


#: The ids at the beginning of a line of squeue's.
_ROW = re.compile(r"\d+\|[^|]+\|\d+\|")
_DISTURBING = re.compile(
    r"SLURM_(?!CONF)|SLURMD_|SQUEUE_|SACCT_|SCANCEL_|SCONTROL_|SBATCH_(WAIT|ARRAY_INX|CLUSTERS)"
)


class Slurm(Scheduler):
    """SLURM, 20.02 and later."""

    title: ClassVar[str] = "SLURM"
    submit_program: ClassVar[str] = "sbatch"
    settings: SlurmOptions

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Leave out what a job knows of itself, if we are one, and what makes the programs answer otherwise.

        Users' defaults for their jobs (``SBATCH_ACCOUNT``) stay.
        """
        return {name: value for name, value in environment.items() if not _DISTURBING.match(name)}

    def request(self, task: LaunchTask) -> Request:
        """Join the options: those of the task manager, then the run's; the last of a name wins."""
        settings = task.settings or self.settings
        own = run_options(task.options.get("slurm_options"), f"slurm_options of {task.task}")
        options = merge(settings.options, own)
        given = {option_name(option): option for option in options}
        ours = []
        if "output" not in given:
            ours.append("--output=/dev/null")
        if task.nproc > 1 and not given.keys() & _SIZES:
            ours.append(f"--ntasks={task.nproc}")
        if not given.keys() & {"requeue", "no-requeue"}:
            ours.append("--requeue" if settings.requeue else "--no-requeue")
        if settings.signal and "signal" not in given:
            ours.append(f"--signal=B:{settings.signal}")
        return Request(
            options=(*ours, *options),
            nproc=task.nproc,
            modules=settings.module,
            runs_per_job=settings.runs_per_job,
        )

    def script(self, submission: Submission) -> str:
        """Directives, then what is executed; sbatch takes no directive after the first command."""
        options = submission.request.options
        head = "".join(f"#SBATCH {option}\n" for option in options)
        warning = None
        for option in options:
            if match := _WARNING.fullmatch(option):
                warning = match[1].upper()
        rest = body(
            submission.elements,
            job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}_${SLURM_ARRAY_TASK_ID:-0}",
            index="${SLURM_ARRAY_TASK_ID:-0}",
            submit_directory="SLURM_SUBMIT_DIR",
            warning=warning,
            modules=submission.request.modules,
        )
        return f"#!/bin/bash\n{head}\n{rest}"

    def submit_command(self, submission: Submission) -> list[str]:
        """Name and array go here: variables such as SBATCH_JOB_NAME win over directives."""
        command = ["sbatch", "--parsable", f"--job-name={submission.name}"]
        if submission.is_array:
            command.append(f"--array={array_of(submission.elements)}")
        return command

    def submitted_id(self, output: str) -> str:
        """Read ``12`` or ``12;cluster``, in the last line: site plugins may print others."""
        match = re.fullmatch(r"(\d+)(;.*)?", (output.split("\n")[:-1] or [""])[-1].strip())
        return match[1] if match else ""

    def refusal(self, code: int | None, errors: str) -> Refusal:
        """Tell by SLURM's messages; its exit codes hardly say anything."""
        if _LIMITS.search(errors):
            return Refusal.LIMIT
        if limit := limit_of(errors):
            return limit
        if _OUT_OF_REACH.search(errors):
            return Refusal.UNREACHABLE
        is_mistake = code == 255 and "sbatch" in errors  # it did not even ask the controller
        return Refusal.PERMANENT if is_mistake or (code and _REFUSED.search(errors)) else Refusal.UNKNOWN

    def element_id(self, job_id: str, index: int, *, is_array: bool) -> str:
        """``12_3``, or ``12``."""
        return f"{job_id}_{index}" if is_array else job_id

    def status_command(self) -> list[str]:
        """One squeue for all; ``-t all`` adds those that ended within the site's MinJobAge."""
        fields = ("ArrayJobID", "ArrayTaskID", "JobID", "State", "exit_code", "Reason", "Name")
        wanted = ",".join(f"{field}:|" for field in fields)
        return ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "-O", wanted]

    def parse_status(self, output: str) -> list[Seen]:
        """Read a line for each job, ``12|3|15|RUNNING|0|None|motoko-...|``, with a wait status.

        Some sites' squeue has something to say beside its table, and the names of others' jobs are as odd as
        may be: empty, or of several lines.
        """
        found: list[Seen] = []
        lines = output.splitlines()
        table = [line for line in lines if _ROW.match(line)]
        if lines and not table:
            raise ValueError(f"squeue answered {lines[0]!r}, which is no line of its table")
        for line in table:
            array, index, _, word, status, reason, name = line.removesuffix("|").split("|", 6)
            if not name.startswith("motoko-"):
                continue
            launched = reason != "JobLaunchFailure"  # e.g. the file for the job's output cannot be made
            phase, why = state(word if launched else "LAUNCH_FAILED")
            number = int(index) if index.isdigit() else None
            found.append(
                Seen(
                    name=name,
                    index=number,
                    job_id=self.element_id(array, number or 0, is_array=number is not None),
                    record_job=f"{array}_{number or 0}",
                    phase=phase,
                    exit_code=_exit_code(status) if phase is Phase.OVER and launched else None,
                    reason=why,
                    word=word if reason in ("None", "NonZeroExitCode", "") else f"{word} ({reason})",
                )
            )
        return found

    def history_command(self, job_ids: Sequence[str]) -> list[str]:
        """Ask the accounting, of whole jobs (``-X``), whenever they were."""
        return ["sacct", "-n", "-P", "-X", f"--jobs={','.join(job_ids)}", "--format=JobID,State,ExitCode"]

    def parse_history(self, output: str) -> list[Seen]:
        """Read one line for each job: ``12_3|FAILED|3:0``, the exit code and the signal."""
        found = []
        for line in output.splitlines():
            job_id, word, codes = line.split("|")
            array, _, index = job_id.partition("_")
            if index and not index.isdigit():
                continue  # `12_[3-9]`: they were never started
            phase, why = state(word)
            code, _, number = codes.partition(":")
            found.append(
                Seen(
                    name="",
                    index=int(index) if index else None,
                    job_id=job_id,
                    record_job=f"{array}_{index or 0}",
                    phase=phase,
                    exit_code=-int(number) if int(number or 0) else int(code),
                    reason=why,
                    word=word,
                )
            )
        return found

    def cancel_command(self, job_ids: Sequence[str], name: str | None = None) -> list[str]:
        """Signal TERM, after the site's KillWait KILL, to every process of the jobs."""
        return ["scancel", "--quiet", *([f"--name={name}"] if name else []), *job_ids]

    def limit_command(self) -> list[str] | None:
        """Ask for the cluster's settings, unless the user has said it."""
        return None if self.settings.max_array_size else ["scontrol", "show", "config"]

    def parse_limit(self, output: str) -> int | None:
        """MaxArraySize: indices are smaller. 0: the cluster has no arrays."""
        match = re.search(r"^MaxArraySize\s*=\s*(\d+)", output, re.MULTILINE)
        return max(1, int(match[1])) if match else None


def array_of(indices: Sequence[int] | Mapping[int, object]) -> str:
    """Write indices as sbatch reads them: ``0-3,5``."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
