"""The part of job scripts that all schedulers share: executing runs, and what signals do to them.

A job script is the scheduler's head, with its directives; then :func:`body`. Names of the users' stand in the
body only, quoted, each run in one line: nothing in them is executed or taken for a directive.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from motoko_core.interfaces import EXECUTE, OVER, LaunchTask

_SPECIAL = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff\\']")

# - TERM is meant for the run. This shell lives on and begins no other. `stopped` in the record tells that the
#   run did not end by itself: if the scheduler starts the job again, the run is executed again.
# - Some schedulers signal every process of a job; SLURM with cgroups signals this shell alone, but for sites
#   that have set SignalChildrenProcesses (https://slurm.schedmd.com/cgroup.conf.html). A process that does
#   nothing, the canary, tells which: if it outlives the signal by a second, the run has not got it either,
#   and gets it from here; once, for a second one ends many a program that saves, and parents before children,
#   or a shell would go on with its next command. The job ends when those that got it have ended: they may
#   have something to save.
# - Signals come one after another, and this shell's may be the last: a busy machine has executed a run's
#   processes to their end before. So a failure is no run's own unless the canary outlives it by a second.
# - (In a trap, a plain `return` answers what the last command before the trap has answered.)
# - A job that was started again executes only what it has not ended before.
_RUN = """\
motoko_code=0 motoko_begun= motoko_failed= motoko_pid= motoko_record= motoko_stopped=
motoko_stopping= motoko_told=()
trap 'motoko_stopped=1; [[ -z $motoko_pid ]] || motoko_stop' TERM
(trap '' HUP INT QUIT USR1 USR2; exec tail --pid=$$ -f /dev/null) < /dev/null > /dev/null 2>&1 &
motoko_canary=$!
disown
trap 'motoko_lives "$motoko_canary" $$ && kill -s KILL "$motoko_canary"' EXIT

motoko_lives() {{
    local key value
    while read -r key value; do
        case $key in
        State:) [[ $value != Z* ]] || return 1 ;;
        PPid:) [[ -z ${{2-}} || $value == "$2" ]]; return $? ;;
        esac
    done < "/proc/$1/status"
    return 1
}} 2>/dev/null

motoko_is_ending() {{
    local n
    for n in {{1..10}}; do
        [[ -z $motoko_canary ]] || motoko_lives "$motoko_canary" $$ || return 0
        sleep 0.1
    done
    return 1
}}

motoko_stop() {{
    [[ -z $motoko_stopping ]] || return
    motoko_stopping=1
    printf '\\nstopped by SIGTERM %s\\n' "$motoko_start" >> "$motoko_record"
    [[ ${{1-}} != now ]] && motoko_is_ending || motoko_pass_on
    motoko_stopping=
}}

motoko_pass_on() {{
    local pid
    local -A names=() children=() caught=()
    local -a tree=()
    motoko_tree 15
    for pid in "${{tree[@]}}"; do
        kill -s TERM "$pid" 2>/dev/null && motoko_told+=("$pid")
    done
}}

motoko_run() {{
    local code pid
    motoko_record="$2/.motoko-$1"
    if [[ -e $motoko_record{over} ]]; then
        motoko_code=125
        return
    elif [[ -n $motoko_failed ]]; then
        [[ -e $motoko_record ]] || true > "$5"
        printf '%s\\n' "$motoko_failed" >> "$5"
        motoko_code=127
        return
    elif [[ -n $motoko_stopped || ( -n $motoko_warned && -n $motoko_begun ) ]]; then
        motoko_code=143
        return
    elif [[ -e $motoko_record ]] && motoko_look "$motoko_record" && [[ -n $motoko_interrupted &&
            $motoko_first == "started $motoko_job" && $motoko_last == "ended "[1-9]* ]]; then
        printf '\\nagain\\n' >> "$motoko_record"
    fi
    motoko_lives "$motoko_canary" $$ || motoko_canary=
    export {submit_directory}=$2
    motoko_begun=1
    motoko_execute "$@" "$motoko_job"
    code=$?
    for pid in "${{motoko_told[@]}}"; do
        while motoko_lives "$pid"; do sleep 0.1; done
    done
    motoko_told=()
    (( code == 0 )) && return
    motoko_code=$code
    [[ -n $motoko_ended ]] || return
    [[ -n $motoko_stopped ]] || ! motoko_is_ending || motoko_stopped=1
    [[ -z $motoko_stopped ]] || printf '\\nstopped by SIGTERM %s\\n' "$motoko_start" >> "$motoko_record"
}}

motoko_tree() {{
    local status key value pid n
    for status in /proc/[0-9]*/status; do
        pid=${{status//[!0-9]/}}
        while read -r key value _; do
            case $key in
            Name:) names[$pid]=$value ;;
            PPid:) children[$value]+=" $pid" ;;
            SigCgt:) (( 16#$value >> ($1 - 1) & 1 )) && caught[$pid]=1 ;;
            esac
        done < "$status"
    done 2>/dev/null
    tree=("$motoko_pid")
    for ((n = 0; n < ${{#tree[@]}}; n++)); do
        tree+=(${{children[${{tree[n]}}]-}})
    done
}}
"""

# - (Where little time is asked for, it may come at once: `body` begins with a trap for it.)
# - Who does not know the signal would be killed by it: it goes to those that catch it.
# - Programs that start others on many nodes catch it to pass it on, to whoever it may kill.
_WARN = """\
motoko_warn() {
    local pid number=$1
    local -A names=() children=() caught=()
    local -a tree=()
    motoko_warned=1
    [[ -n $motoko_pid && -z $motoko_stopped ]] || return
    [[ $number == +([0-9]) ]] || number=$(kill -l "$1")
    motoko_tree "$number"
    for pid in "${tree[@]}"; do
        [[ -n ${caught[$pid]-} ]] || continue
        [[ ${names[$pid]} != @(srun|mpirun|mpiexec*|orterun|prterun|prun) ]] || continue
        kill -s "$1" "$pid" 2>/dev/null
    done
}
"""

# A batch shell is no login shell: on some clusters it has not heard of `module` yet.
_MODULES = """\
motoko_modules() {
    local file name
    for file in "${MODULESHOME-}/init/bash" "${LMOD_PKG-}/init/bash" \\
                /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
        type module > /dev/null 2>&1 && break
        [[ -r $file ]] && . "$file"
    done
    if ! type module > /dev/null 2>&1; then
        echo "motoko: environment modules are asked for, and $HOSTNAME has no command 'module'"
        return 1
    fi
    module purge
    for name in "$@"; do
        module load "$name" || { echo "motoko: 'module load $name' failed on $HOSTNAME"; return 1; }
    done
}
motoko_messages=$(mktemp 2>/dev/null || mktemp -p /tmp)
if ! motoko_modules @NAMES@ > "$motoko_messages" 2>&1; then
    motoko_failed=$(cat -- "$motoko_messages" 2>/dev/null)
    motoko_failed=${motoko_failed:-motoko: the environment modules cannot be loaded on $HOSTNAME}
fi
rm -f -- "$motoko_messages"
"""


def quote(text: str) -> str:
    """Quote a text for bash, in one line whatever is in it; bytes that are no UTF-8 stay what they were."""
    if not _SPECIAL.search(text):
        return shlex.quote(text)

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if character in "\\'":
            return f"\\{character}"
        return f"\\x{ord(character) & 0xFF:02x}"

    return f"$'{_SPECIAL.sub(escaped, text)}'"


def to_bytes(script: str) -> bytes:
    """A script as it is submitted.

    :raises UnicodeEncodeError: there is a name in it that no file can have.
    """
    return script.encode("utf-8", "surrogateescape")


def body(
    elements: Mapping[int, Sequence[LaunchTask]],
    *,
    job: str,
    index: str,
    submit_directory: str,
    warning: str | None = None,
    modules: Iterable[str] = (),
) -> str:
    """Return what follows the directives.

    :param elements: index -> the runs that this element executes, one after another.
    :param job: bash for the name of the job in exit records, the same when the scheduler starts it again.
    :param index: bash for the element's index.
    :param submit_directory: the variable that says where the job was submitted: scripts go there.
    :param warning: the signal, such as ``USR1``, that says to the job's shell that its time runs out.
    """
    names = [quote(name) for name in modules]
    parts = ["motoko_warned=\n", EXECUTE, _RUN.format(submit_directory=submit_directory, over=OVER)]
    if warning and warning.upper() not in ("TERM", "15"):  # that one goes to the run anyway
        parts[0] += f"trap 'motoko_warned=1' {warning}\n"
        parts.append(f"{_WARN}trap 'motoko_warn {warning}' {warning}\n")
    if names:
        parts.append(_MODULES.replace("@NAMES@", " ".join(names)))
    cases = []
    for number, tasks in elements.items():
        lines = "".join(f"    {line_of(task)}\n" for task in tasks)
        cases.append(f"{number})\n{lines}    ;;\n")
    parts.append(f'motoko_job="{job}"\ncase {index} in\n{"".join(cases)}esac\nexit "$motoko_code"\n')
    return "\n".join(parts)


def line_of(task: LaunchTask) -> str:
    """The line that executes a run."""
    files = (str(task.directory), task.script, str(task.stdout), str(task.stderr))
    return " ".join(["motoko_run", quote(task.tag), *map(quote, files)])
