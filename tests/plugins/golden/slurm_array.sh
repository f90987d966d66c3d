#!/bin/bash
#SBATCH --output=/dev/null
#SBATCH --ntasks=4
#SBATCH --no-requeue
#SBATCH --signal=B:USR1@60
#SBATCH --time=1:00:00
#SBATCH -p debug

# motoko_execute

motoko_code=0 motoko_begun= motoko_failed= motoko_pid= motoko_stopped= motoko_warned=
trap 'motoko_stopped=1' TERM

motoko_run() {
    local record="$2/.motoko-$1" code
    if [[ -n $motoko_failed ]]; then
        printf '%s\n' "$motoko_failed" > "$5"
        motoko_code=127
        return
    elif [[ -n $motoko_stopped || ( -n $motoko_warned && -n $motoko_begun ) ]]; then
        motoko_code=143
        return
    elif [[ -s $record && $(head -n 1 -- "$record") == "started $motoko_job" &&
            $(grep -E '^(started|stopped) ' -- "$record" | tail -n 1) == stopped* &&
            $(tail -n 1 -- "$record") != "ended 0" ]]; then
        echo again >> "$record"
    fi
    export SLURM_SUBMIT_DIR=$2
    motoko_begun=1
    motoko_execute "$@" "$motoko_job"
    code=$?
    (( code == 0 )) && return
    motoko_code=$code
    [[ $(tail -n 1 -- "$record") == "ended $code" ]] || return
    [[ -n $motoko_stopped ]] || sleep 1
    [[ -z $motoko_stopped ]] || printf 'stopped by SIGTERM\nended %s\n' "$code" >> "$record"
}

motoko_warn() {
    local number=$(kill -l "$1") status key value pid ancestor
    local -A names=() parents=() caught=()
    motoko_warned=1
    [[ -n $motoko_pid ]] || return
    for status in /proc/[0-9]*/status; do
        pid=${status//[!0-9]/}
        while read -r key value _; do
            case $key in
            Name:) names[$pid]=$value ;;
            PPid:) parents[$pid]=$value ;;
            SigCgt:) caught[$pid]=$value ;;
            esac
        done < "$status"
    done 2>/dev/null
    for pid in "${!caught[@]}"; do
        (( 16#${caught[$pid]} >> (number - 1) & 1 )) || continue
        [[ ${names[$pid]} != @(srun|mpirun|mpiexec*|orterun|prterun|prun) ]] || continue
        ancestor=$pid
        while [[ -n $ancestor && $ancestor != "$motoko_pid" ]]; do ancestor=${parents[$ancestor]-}; done
        [[ -z $ancestor ]] || kill -s "$1" "$pid" 2>/dev/null
    done
}
trap 'motoko_warn USR1' USR1

motoko_modules() {
    local file name
    for file in "${MODULESHOME-}/init/bash" "${LMOD_PKG-}/init/bash" \
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
motoko_messages=$(mktemp)
motoko_modules gcc/12 openmpi > "$motoko_messages" 2>&1 || motoko_failed=$(cat -- "$motoko_messages")
rm -f -- "$motoko_messages"

motoko_job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}_${SLURM_ARRAY_TASK_ID:-0}"
case ${SLURM_ARRAY_TASK_ID:-0} in
0)
    motoko_run motoko-add-1-0123456789ab /data/BD-add-runs/run-1 launch.sh /data/BD-add-runs/run-1/wf.o1 /data/BD-add-runs/run-1/wf.e1
    motoko_run motoko-add-2-0123456789ab /data/BD-add-runs/run-2 launch.sh /data/BD-add-runs/run-2/wf.o2 /data/BD-add-runs/run-2/wf.e2
    ;;
1)
    motoko_run motoko-add-3-0123456789ab $'/data/it\'s\x0a#SBATCH --array=0-9' 'a b.sh' $'/data/it\'s\x0a#SBATCH --array=0-9/wf.o3' $'/data/it\'s\x0a#SBATCH --array=0-9/wf.e3'
    ;;
esac
exit "$motoko_code"
