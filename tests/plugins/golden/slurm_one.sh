#!/bin/bash
#SBATCH --output=/dev/null
#SBATCH --no-requeue
#SBATCH --signal=B:USR1@60

motoko_warned=
trap 'motoko_warned=1' USR1

# motoko_execute

motoko_code=0 motoko_begun= motoko_failed= motoko_pid= motoko_record= motoko_stopped=
motoko_stopping= motoko_told=()
trap 'motoko_stopped=1; [[ -z $motoko_pid ]] || motoko_stop' TERM
(trap '' HUP INT QUIT USR1 USR2; exec tail --pid=$$ -f /dev/null) < /dev/null > /dev/null 2>&1 &
motoko_canary=$!
disown
trap 'motoko_lives "$motoko_canary" $$ && kill -s KILL "$motoko_canary"' EXIT

motoko_lives() {
    local key value
    while read -r key value; do
        case $key in
        State:) [[ $value != Z* ]] || return 1 ;;
        PPid:) [[ -z ${2-} || $value == "$2" ]]; return $? ;;
        esac
    done < "/proc/$1/status"
    return 1
} 2>/dev/null

motoko_is_ending() {
    local n
    for n in {1..10}; do
        [[ -z $motoko_canary ]] || motoko_lives "$motoko_canary" $$ || return 0
        sleep 0.1
    done
    return 1
}

motoko_stop() {
    [[ -z $motoko_stopping ]] || return
    motoko_stopping=1
    printf '\nstopped by SIGTERM %s\n' "$motoko_start" >> "$motoko_record"
    [[ ${1-} != now ]] && motoko_is_ending || motoko_pass_on
    motoko_stopping=
}

motoko_pass_on() {
    local pid
    local -A names=() children=() caught=()
    local -a tree=()
    motoko_tree 15
    for pid in "${tree[@]}"; do
        kill -s TERM "$pid" 2>/dev/null && motoko_told+=("$pid")
    done
}

motoko_run() {
    local code pid
    motoko_record="$2/.motoko-$1"
    if [[ -e $motoko_record.over ]]; then
        motoko_code=125
        return
    elif [[ -n $motoko_failed ]]; then
        [[ -e $motoko_record ]] || true > "$5"
        printf '%s\n' "$motoko_failed" >> "$5"
        motoko_code=127
        return
    elif [[ -n $motoko_stopped || ( -n $motoko_warned && -n $motoko_begun ) ]]; then
        motoko_code=143
        return
    elif [[ -e $motoko_record ]] && motoko_look "$motoko_record" && [[ -n $motoko_interrupted &&
            $motoko_first == "started $motoko_job" && $motoko_last == "ended "[1-9]* ]]; then
        printf '\nagain\n' >> "$motoko_record"
    fi
    motoko_lives "$motoko_canary" $$ || motoko_canary=
    export SLURM_SUBMIT_DIR=$2
    motoko_begun=1
    motoko_execute "$@" "$motoko_job"
    code=$?
    for pid in "${motoko_told[@]}"; do
        while motoko_lives "$pid"; do sleep 0.1; done
    done
    motoko_told=()
    (( code == 0 )) && return
    motoko_code=$code
    [[ -n $motoko_ended ]] || return
    [[ -n $motoko_stopped ]] || ! motoko_is_ending || motoko_stopped=1
    [[ -z $motoko_stopped ]] || printf '\nstopped by SIGTERM %s\n' "$motoko_start" >> "$motoko_record"
}

motoko_tree() {
    local status key value pid n
    for status in /proc/[0-9]*/status; do
        pid=${status//[!0-9]/}
        while read -r key value _; do
            case $key in
            Name:) names[$pid]=$value ;;
            PPid:) children[$value]+=" $pid" ;;
            SigCgt:) (( 16#$value >> ($1 - 1) & 1 )) && caught[$pid]=1 ;;
            esac
        done < "$status"
    done 2>/dev/null
    tree=("$motoko_pid")
    for ((n = 0; n < ${#tree[@]}; n++)); do
        tree+=(${children[${tree[n]}]-})
    done
}

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
trap 'motoko_warn USR1' USR1

motoko_job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}_${SLURM_ARRAY_TASK_ID:-0}"
case ${SLURM_ARRAY_TASK_ID:-0} in
0)
    motoko_run motoko-add-7-0123456789ab /data/BD-add-runs/run-7 launch.sh /data/BD-add-runs/run-7/wf.o7 /data/BD-add-runs/run-7/wf.e7
    ;;
esac
exit "$motoko_code"
