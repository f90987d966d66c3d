#!/bin/bash
#SBATCH --output=/dev/null
#SBATCH --requeue
#SBATCH --ntasks=2

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

motoko_job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}_${SLURM_ARRAY_TASK_ID:-0}"
case ${SLURM_ARRAY_TASK_ID:-0} in
4)
    motoko_run motoko-add-5-0123456789ab /data/BD-add-runs/run-5 launch.sh /data/BD-add-runs/run-5/wf.o5 /data/BD-add-runs/run-5/wf.e5
    ;;
esac
exit "$motoko_code"
