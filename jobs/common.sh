# shellcheck shell=bash disable=SC2154
# What the conversions' job scripts share: the site file, the chain of jobs, and the running of one stage.
#
# A script sets `conversion` (its name) and calls load_site; it sets the defaults of model, tokens and
# evaluation_tokens, stage_ranks[STAGE], and the programs' options in model_options, block_options and lora_options;
# then it calls `linearize "$@"`. Without an argument that checks the plan and submits the stages as a chain of jobs;
# with a stage's name it runs that stage.

readonly stages=(hidden block lora eval)
readonly requeue_status=85 # by which a program says that it stopped before its end and can go on
root=$(cd "${LOLCATS_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}" && pwd)
declare -A stage_ranks

say() { echo "$(date '+%F %T') $conversion: $*" >&2; }
die() {
    echo "$conversion: error: $*" >&2
    exit 1
}

# shellcheck source=jobs/site.sh
load_site() {
    local own=${LOLCATS_SITE:-} build=build
    source "$root/jobs/site.sh"
    if [ -n "$own" ]; then
        [ -r "$own" ] || die "$own: cannot be read; correct LOLCATS_SITE, or unset it to use jobs/site.sh"
        LOLCATS_SITE=$(realpath "$own")
        export LOLCATS_SITE
        source "$LOLCATS_SITE"
    fi
    [ "$site_gpus_per_node" -eq 0 ] || build="build-cuda"
    site_bin=${site_bin:-$root/$build/bin}
}

load_modules() {
    [ ${#site_modules[@]} -gt 0 ] || return 0
    set +u # modules of most systems read variables that are not set
    module load "${site_modules[@]}" || die "module load ${site_modules[*]}: failed; correct site_modules"
    set -u
}

# The files of this conversion, as absolute paths: from the environment, else the script's and the site's.
set_paths() {
    export LOLCATS_ROOT=$root LOLCATS_MODEL LOLCATS_TOKENS LOLCATS_EVALUATION_TOKENS LOLCATS_WORK
    LOLCATS_MODEL=$(realpath -m "${LOLCATS_MODEL:-$model}")
    LOLCATS_TOKENS=$(realpath -m "${LOLCATS_TOKENS:-$tokens}")
    LOLCATS_EVALUATION_TOKENS=$(realpath -m "${LOLCATS_EVALUATION_TOKENS:-$evaluation_tokens}")
    LOLCATS_WORK=$(realpath -m "${LOLCATS_WORK:-$site_scratch/$conversion}")
    work=$LOLCATS_WORK
    mkdir -p "$work/logs" || die "$work: cannot be made; correct LOLCATS_WORK or site_scratch"
}

# --- The chain of jobs ----------------------------------------------------------------------------------------------

# Ends the script where memory or disk will not do, before anything waits in the queue.
check_plan() {
    "$site_bin/lolcats_plan" --plan-check --model "$LOLCATS_MODEL" --tokens "$LOLCATS_TOKENS" --work "$work" \
        --plan-ranks "${stage_ranks[lora]}" "${model_options[@]}" "${block_options[@]}" "${lora_options[@]}" \
        "${site_plan_options[@]}" "${site_program_options[@]}" || die "the plan was refused; nothing was submitted"
}

# A variable of the job that submits would be taken for one of the job submitted.
without_job_variables() (
    for name in "${!SLURM_@}"; do
        [ "$name" = SLURM_CONF ] || unset "$name"
    done
    "$@"
)

# queued_job STAGE: id of this conversion's job for it, if one waits or runs. Jobs are known by name and work directory.
queued_job() {
    squeue --noheader --user="$(id -un)" --name="$conversion.$1" --states=PENDING,RUNNING,SUSPENDED,CONFIGURING \
        --format='%A %Z' | while read -r id directory; do
        if [ "$directory" = "$work" ]; then echo "$id"; fi
    done | tail -n 1
}

# submit_stage STAGE PREVIOUS: prints the id of a new job for it, which begins when job PREVIOUS, if any, has succeeded.
submit_stage() {
    local stage=$1 previous=$2 ranks=${stage_ranks[$1]}
    local nodes=$(((ranks + site_ranks_per_node - 1) / site_ranks_per_node))
    local per_node=$(((ranks + nodes - 1) / nodes))
    local options=(--parsable --job-name="$conversion.$stage" --chdir="$work" --output="$work/logs/%x-%j.log"
        --open-mode=append --nodes="$nodes" --ntasks="$ranks" --ntasks-per-node="$per_node"
        --cpus-per-task="$site_cpus_per_rank" --time="$site_time" --signal="B:USR1@$site_warning_seconds" --requeue)
    [ -z "$previous" ] || options+=(--dependency="afterok:$previous" --kill-on-invalid-dep=yes)
    [ -z "$site_partition" ] || options+=(--partition="$site_partition")
    [ -z "$site_account" ] || options+=(--account="$site_account")
    [ "$site_gpus_per_node" -eq 0 ] ||
        options+=(--gpus-per-node="$((per_node * site_gpus_per_node / site_ranks_per_node))")
    without_job_variables sbatch "${options[@]}" "${site_sbatch_options[@]}" "$root/jobs/$conversion.sh" "$stage" |
        cut -d';' -f1
}

# Submits the stages after the last one that is queued: all of them, none, or those that an earlier submission did not
# get to.
submit_chain() {
    local i id previous='' begin=0
    for i in "${!stages[@]}"; do
        id=$(queued_job "${stages[i]}")
        [ -z "$id" ] && continue
        say "${stages[i]} is queued already, as job $id"
        previous=$id
        begin=$((i + 1))
    done
    for ((i = begin; i < ${#stages[@]}; i++)); do
        previous=$(submit_stage "${stages[i]}" "$previous")
        say "${stages[i]} submitted as job $previous"
    done
}

# --- One stage ------------------------------------------------------------------------------------------------------

# Slurm's warning that the time is nearly up reaches this shell alone: the launcher hands it on to the ranks.
warned=0
ended=0
pass_warning() {
    warned=1
    say "told to stop; the ranks are told as well"
    kill -USR1 "$launcher" 2>/dev/null || true
}

# By which of its ways Slurm's PMIx plugin lets ranks wait for one another in MPI_Init. With fewer nodes than TreeWidth
# "tree", and so the default, waits for none of another node: a message may reach a rank that is not ready, which crashes.
export SLURM_PMIX_FENCE=ring

# launch OPTIONS...: runs the command on the stage's ranks and returns its status.
launch() {
    local command
    case $site_launcher in
        srun) command=(srun --ntasks="$ranks" --cpus-per-task="$site_cpus_per_rank" "${site_srun_options[@]}") ;;
        mpirun) command=(mpirun -n "$ranks" "${site_mpirun_options[@]}") ;;
        *) die "site_launcher is '$site_launcher'; set it to srun or mpirun" ;;
    esac
    "${command[@]}" "$@" &
    launcher=$!
    trap pass_warning USR1
    trap 'ended=1' TERM # cancelled or requeued: Slurm tells the ranks itself
    while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || true; done # a signal ends `wait`, not the launcher
    local status=0
    wait "$launcher" || status=$?
    trap - USR1 TERM
    return "$status"
}

# Slurm numbers a job's steps from 0 again when it starts the job again. But a launcher of an earlier start, woken on a node
# that was given up, ends its step by number, and a node that died keeps the step's socket: no number is used twice.
readonly steps_a_start=2 # at most, in any stage
skip_used_steps() {
    local i
    for ((i = 0; i < steps_a_start * ${SLURM_RESTART_COUNT:-0}; i++)); do
        srun --nodes=1 --ntasks=1 --mpi=none true || say "step $i could not be skipped"
    done
}

# Whether Slurm still takes this start of the job for the one that runs. A node that was given up does not know.
is_current() {
    local text
    text=$(scontrol show job --oneliner "$SLURM_JOB_ID") || return 1
    [[ $text == *" Restarts=${SLURM_RESTART_COUNT:-0} "* && $text == *" JobState=RUNNING "* ]]
}

# requeue WHY: has this job started again later. One that was cancelled or requeued meanwhile is left to that.
requeue() {
    { [ -n "${SLURM_JOB_ID:-}" ] && is_current; } || exit $requeue_status
    [ "${SLURM_RESTART_COUNT:-0}" -lt "$site_max_restarts" ] ||
        die "requeued ${SLURM_RESTART_COUNT} times; see whether it gets on, and raise site_max_restarts"
    say "$1; requeued to go on from there"
    scontrol requeue "$SLURM_JOB_ID" || true # else a cluster with RequeueExit=85 does it
    exit $requeue_status
}

# run_program NAME OPTIONS...: runs lolcats_NAME on the ranks; where it stopped before its end, the job is requeued.
run_program() {
    local program=lolcats_$1 status=0 done_file
    shift
    done_file=$work/logs/$program.done.${SLURM_JOB_ID:-$$}.${SLURM_RESTART_COUNT:-0}
    launch "$site_bin/$program" --model "$LOLCATS_MODEL" --done-file "$done_file" "${model_options[@]}" "$@" \
        "${site_program_options[@]}" || status=$?
    if [ -e "$done_file" ]; then
        rm "$done_file"
        return
    fi
    if [ $ended -eq 1 ]; then
        say "ended by the scheduler"
        sleep 60 # which ends this shell too: a status that comes before it has noted the requeue would fail the job
        exit $requeue_status
    fi
    if [ $status -eq $requeue_status ] || [ $warned -eq 1 ]; then requeue "stopped before the end"; fi
    # A launcher that lost its nodes, or never got to start the ranks, may end with 0.
    [ $status -ne 0 ] || requeue "$site_launcher ended without an error before $program was done"
    die "$program ended with status $status; see $work/logs, mend it, and submit again: what is done is kept"
}

# evaluate NAME OPTIONS...: leaves the scores in WORK/NAME.json, which are kept as long as they are the newer files.
evaluate() {
    local result=$work/$1.json part=$work/$1.json.tmp.${SLURM_JOB_ID:-$$}.${SLURM_RESTART_COUNT:-0}
    shift
    [ "$result" -nt "$work/lora/adapter_config.json" ] && [ "$result" -nt "$LOLCATS_EVALUATION_TOKENS" ] && return
    rm -f "$result".tmp.*
    run_program eval --tokens "$LOLCATS_EVALUATION_TOKENS" "$@" >"$part"
    mv "$part" "$result"
}

run_stage() {
    local stage=$1 ranks=${stage_ranks[$1]}
    cd "$work" || die "$work: cannot be entered"
    skip_used_steps
    case $stage in
        hidden) run_program hidden --tokens "$LOLCATS_TOKENS" --work "$work" ;;
        block) run_program block --tokens "$LOLCATS_TOKENS" --work "$work" "${block_options[@]}" ;;
        lora) run_program lora --tokens "$LOLCATS_TOKENS" --work "$work" "${lora_options[@]}" ;;
        eval)
            evaluate teacher --attention teacher
            local maps=lora/feature_maps.safetensors # where stage 2 went on training them
            [ -f "$maps" ] || maps=transfer
            evaluate evaluation --feature-maps "$maps" --adapter lora
            ;;
    esac
    say "$stage is done"
}

linearize() {
    set_paths
    load_modules
    [ -x "$site_bin/lolcats_plan" ] || die "$site_bin: holds no compiled programs; build them, or correct site_bin"
    if [ $# -eq 0 ]; then
        check_plan
        submit_chain
    elif [ $# -eq 1 ] && [ -n "${stage_ranks[$1]:-}" ]; then
        run_stage "$1"
    else
        die "'$*' is no stage; give one of ${stages[*]}, or nothing to submit them all"
    fi
}
