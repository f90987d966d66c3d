"""The exit record: how one execution of a run began and ended, in a file of the run directory.

Whoever executes a run writes it, on whatever machine that is; it needs no database and no scheduler. A
record belongs to one tag, so what an earlier attempt has left is never taken for this one's. Since the first
execution alone creates it (``O_EXCL``), it also keeps what was submitted
twice from being executed twice.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import attrs

__all__ = [
    "EXECUTE",
    "NOBODY",
    "TAG_VARIABLE",
    "ExitRecord",
    "exit_record_path",
    "forbid_execution",
    "read_exit_record",
]

#: Begins the names of records; the rest is the tag.
PREFIX = ".motoko-"
#: Who has executed a run whose execution was forbidden.
NOBODY = "nobody"
#: What a script finds in its environment: the tag of its execution.
TAG_VARIABLE = "MOTOKO_TAG"

#: A bash function for job scripts: ``motoko_execute TAG DIRECTORY SCRIPT STDOUT STDERR JOB``. It executes a
#: run's script, keeps the record and answers the script's exit code; 126: the directory is out of reach;
#: 125: another job has executed it, and it is not executed again. ``JOB`` names this job; one that the
#: scheduler starts again under the same name may execute again.
#:
#: - The script runs in the background, so that traps of the job script work meanwhile; its process id is in
#:   ``motoko_pid``.
#: - A script that ends while a trap works is waited for once more: the first `wait` has told of the signal.
#: - The record is the shell's own standard error while it waits: when the script is killed, the shell says so
#:   there ("Killed"), which is all that tells ``kill -9`` from ``exit 137``.
EXECUTE = f"""\
motoko_execute() {{
    local record="{PREFIX}$1" code
    cd -- "$2" || return 126
    if (set -o noclobber; printf 'started %s\\n' "$6" > "$record") 2>/dev/null; then
        :
    elif [[ ! -s $record ]]; then
        return 126
    elif [[ $(head -n 1 -- "$record") == "started $6" && $(tail -n 1 -- "$record") != ended* ]]; then
        printf 'started %s\\n' "$6" >> "$record" || return 126
    else
        return 125
    fi
    {{
        {TAG_VARIABLE}=$1 bash "./$3" < /dev/null > "$4" 2> "$5" &
        motoko_pid=$!
        while wait "$motoko_pid"; code=$?; (( code > 128 )) && kill -0 "$motoko_pid" 2>/dev/null; do :; done
        (( code <= 128 )) || {{ wait "$motoko_pid"; code=$?; }}
        motoko_pid=
        printf 'ended %s\\n' "$code" >&2
    }} 2>> "$record"
    return "$code"
}}
"""


@attrs.frozen(kw_only=True)
class ExitRecord:
    """How far an execution has come.

    :param job: who executes it, in the words of the generator that started it.
    :param starts: how often it was started; more than 1 if the scheduler has started its job again.
    :param exit_code: the script's exit code, ``-n`` if signal n has ended it; None while it has not ended, or
        if whatever ended it left no time to say so.
    """

    job: str
    starts: int = 1
    exit_code: int | None = None


def exit_record_path(directory: Path, tag: str) -> Path:
    """Where the record of the execution ``tag`` stands."""
    return directory / f"{PREFIX}{tag}"


def forbid_execution(directory: Path, tag: str) -> bool:
    """Make sure that an execution that has not begun never begins; False if it has begun.

    For one of which nobody knows whether it waits somewhere: the record is made here, as if it had ended.
    A directory that does not exist is no obstacle, for nothing can be executed in it.

    :raises OSError: the record can neither be made nor be seen.
    """
    try:
        with exit_record_path(directory, tag).open("x") as file:
            file.write(f"started {NOBODY}\nended 125\n")
    except FileExistsError:
        return read_exit_record(directory, tag) == ExitRecord(job=NOBODY, exit_code=125)
    except FileNotFoundError:
        pass
    return True


def read_exit_record(directory: Path, tag: str) -> ExitRecord | None:
    """The record of the execution ``tag``; None if it has not begun, or cannot be read.

    A code above 128 without a word of the shell's is the script's own: one whose *last command* was killed by
    signal n exits with 128 + n. For SIGINT and SIGPIPE shells say nothing: 130 and 141.
    """
    try:
        text = exit_record_path(directory, tag).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = text.split("\n")[:-1]  # what has no line end is not all there yet
    starts = [number for number, line in enumerate(lines) if line.startswith("started ")]
    if not starts:
        return None
    code: int | None = None
    *messages, last = lines[starts[-1] + 1 :] or [""]
    if last.startswith("ended "):
        with suppress(ValueError):
            code = int(last.removeprefix("ended "))
            code = 128 - code if messages and code > 128 else code
    job = lines[starts[0]].removeprefix("started ")
    return ExitRecord(job=job, starts=len(starts), exit_code=code)
