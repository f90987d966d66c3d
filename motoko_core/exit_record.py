"""The exit record: how one execution of a run began and ended, in a file of the run directory.

Whoever executes a run writes it, on whatever machine that is; it needs no database and no scheduler. A
record belongs to one tag, so what an earlier attempt has left is never taken for this one's. Since the first
execution alone creates it (``O_EXCL``), it also keeps what was submitted
twice from being executed twice.
"""

from __future__ import annotations

import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import attrs

__all__ = [
    "EXECUTE",
    "TAG_VARIABLE",
    "ExitRecord",
    "end_execution",
    "exit_record_path",
    "forbid_execution",
    "read_exit_record",
]

#: Begins the names of records; the rest is the tag.
PREFIX = ".motoko-"
#: Who has executed a run whose execution was forbidden.
NOBODY = "nobody"
#: Ends the name of a file beside a record: whoever looks after the execution knows how it has ended.
OVER = ".over"
_FORBIDDEN = f"started {NOBODY}\nended 125\n"
#: What a script finds in its environment: the tag of its execution.
TAG_VARIABLE = "MOTOKO_TAG"

#: A bash function for job scripts: ``motoko_execute TAG DIRECTORY SCRIPT STDOUT STDERR JOB``. It executes a
#: run's script, keeps the record and answers the script's exit code; 126: the directory is out of reach;
#: 125: another job has executed it, or its end is known, and it is not executed again. ``JOB`` names this
#: job; one that the scheduler starts again under the same name executes what has not ended, or is to begin
#: ``again``.
#: ``motoko_ended`` is set if the script has said its exit code; ``motoko_start`` counts its executions.
#:
#: - An empty record is that of another job which is just beginning.
#: - Jobs are signalled at any moment: bash itself makes and reads the record, for a command that it starts
#:   could die of that, and what it leaves unsaid be taken for an answer.
#: - Whose trap has set ``motoko_stopped`` is called (``motoko_stop now``) when the script's process id is
#:   known.
#: - Shells may have been given options (``SHELLOPTS``, or a file that ``BASH_ENV`` names). In POSIX mode,
#:   bash before 5.1 has no process substitution, and does not even read such a function.
#: - ``TMOUT``, which some sites export, ends a ``read`` from a pipe; so do signals in POSIX mode.
#: - A second shell waits for the script. It outlives signals to the whole job, and tells how the script
#:   ended. (A ``wait`` in the job script tells the signal that a trap of the job script has caught, and some
#:   versions of bash forget the script's code then.) The script's process id is in ``motoko_pid``, for such
#:   traps.
#: - That shell's standard error is the record: when the script is killed, it says so there ("Killed"), after
#:   ``running``, which is all that tells ``kill -9`` from ``exit 137``.
#: - It does not read ``BASH_ENV`` (``-p``); the script does. Libraries that are preloaded, and a locale that
#:   is missing, may print something all the same: what counts says what it is, in lines of its own.
#: - A node that its scheduler cannot reach may execute the script to its end, beside the next execution on
#:   another node. So an end tells which execution it is of.
#: - What a shell starts in the background ignores SIGINT and SIGQUIT, and no script could change that.
#: - A record whose last line was cut off (its machine died) gets a line end before it goes on.
EXECUTE = f"""\
motoko_posix=${{POSIXLY_CORRECT-}} IFS=$' \\t\\n'
set +o posix +o noclobber +e +u

motoko_look() {{
    local line
    motoko_first= motoko_last= motoko_interrupted= motoko_start=0
    while IFS= read -r line || [[ -n $line ]]; do
        [[ -n $motoko_first ]] || motoko_first=$line
        case $line in
        "started "*) motoko_last=$line motoko_interrupted= motoko_start=$((motoko_start + 1)) ;;
        again) motoko_last=$line motoko_interrupted= ;;
        "ended "*" $motoko_start") motoko_last=$line ;;
        "stopped "*" $motoko_start") motoko_interrupted=1 ;;
        esac
    done < "$1"
}}

motoko_read() {{
    local line=
    local TMOUT= 2>/dev/null
    until [[ $line == "$1 "* ]]; do
        until read -r line <&"$motoko_pipe"; do
            (( $? > 128 )) || return 1
        done
    done
    printf -v "$2" %s "${{line#* }}"
}}

motoko_execute() {{
    local record="{PREFIX}$1" code=137 is_new=
    motoko_ended=
    cd -- "$2" || return 126
    [[ ! -e $record{OVER} ]] || return 125
    set -o noclobber
    {{ true > "$record" && is_new=1; }} 2>/dev/null
    set +o noclobber
    if [[ -n $is_new ]]; then
        motoko_start=1
        if ! printf 'started %s\\n' "$6" >> "$record"; then
            rm -f -- "$record"
            return 126
        fi
    elif [[ ! -e $record ]] || ! motoko_look "$record"; then
        return 126
    elif [[ $motoko_first == "started $6" && $motoko_last == @("started "*|again) ]]; then
        motoko_start=$((motoko_start + 1))
        printf '\\nstarted %s\\n' "$6" >> "$record" || return 126
    else
        return 125
    fi
    exec {{motoko_pipe}}< <(
        trap - INT QUIT
        exec bash -p -c '
            trap : HUP INT QUIT TERM USR1 USR2
            printf "\\nrunning\\n" >&2
            (
                printf "\\npid %s\\n" "$BASHPID"
                set +p
                [[ -z $6 ]] || export POSIXLY_CORRECT=$6
                {TAG_VARIABLE}=$1 exec bash "./$2" < /dev/null > "$3" 2> "$4"
            )
            code=$?
            printf "ended %s %s\\n" "$code" "$5" >&2
            printf "code %s\\n" "$code"
        ' motoko "$1" "$3" "$4" "$5" "$motoko_start" "${{motoko_posix-}}" 2>> "$record"
    )
    motoko_read pid motoko_pid || motoko_pid=
    [[ -z ${{motoko_stopped-}} ]] || motoko_stop now
    ! motoko_read code code || motoko_ended=1
    motoko_pid=
    exec {{motoko_pipe}}<&-
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

    :raises OSError: the record can neither be made nor be read; try again later.
    """
    path = exit_record_path(directory, tag)
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        # Whole or not at all: an empty one, of somebody who was killed here, would be that of a job for ever.
        new.write_text(_FORBIDDEN)
        try:
            path.hardlink_to(new)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:  # not every file system has links
            _write_whole(path)
    except FileNotFoundError:
        return True
    except OSError:  # it is there already; or nothing can be written there, which does not hide what is
        if not os.path.lexists(path):
            raise
        return read_exit_record(directory, tag) == ExitRecord(job=NOBODY, exit_code=125)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
    return True


def _write_whole(path: Path) -> None:
    with path.open("x") as file:
        try:
            file.write(_FORBIDDEN)
            file.flush()
        except OSError:  # the disk is full: it would be that of a job for ever, too
            path.unlink()
            raise


def end_execution(directory: Path, tag: str) -> None:
    """Make sure that an execution whose end is known is not begun again, should its job be started again.

    The record is left to those who execute it: nothing that two machines write into one file is safe.

    :raises OSError: that cannot be written down.
    """
    path = exit_record_path(directory, tag)
    with suppress(FileNotFoundError, NotADirectoryError):  # nothing can be executed there
        path.with_name(f"{path.name}{OVER}").touch()


def read_exit_record(directory: Path, tag: str) -> ExitRecord | None:
    """The record of the execution ``tag``; None if it has not begun.

    A code above 128 without a word of the shell's is the script's own: one whose *last command* was killed by
    signal n exits with 128 + n. For SIGINT, SIGPIPE and (in some builds of bash) SIGTERM, shells say nothing:
    130, 141 and 143.

    :raises OSError: nobody can tell: there may be one, but it cannot be read now (no descriptor is left, a
        network file system does not answer, ...).
    """
    try:
        text = exit_record_path(directory, tag).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    jobs: list[str] = []
    code: int | None = None
    has_messages = is_stopped = False
    for line in text.split("\n")[:-1]:  # what has no line end is not all there yet
        word, blank, rest = line.partition(" ")
        if (word == "started" and blank) or line == "again":
            jobs += [rest] if blank else []
            code, has_messages, is_stopped = None, False, False
        elif line == "running":
            has_messages = False
        elif word == "ended":
            said, _, start = rest.partition(" ")
            # (The bash generator's spawner starts nothing again, and counts nothing.)
            with suppress(ValueError):
                code = int(said) if start in ("", str(len(jobs))) else code
        elif word == "stopped":
            is_stopped = is_stopped or rest.endswith(f" {len(jobs)}")
        elif line:
            has_messages = has_messages or code is None
    if not jobs:
        return None
    by_signal = has_messages or (is_stopped and code == 128 + signal.SIGTERM)
    if code is not None and 128 < code < 128 + signal.NSIG and by_signal:
        code = 128 - code
    return ExitRecord(job=jobs[0], starts=len(jobs), exit_code=code)
