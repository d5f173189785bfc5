# shellcheck shell=bash disable=SC2154
# What the conversions' job scripts share: the site file, the chain of jobs, and the running of one stage.
#
# A script sets `conversion` (its name), reads this file and calls load_site; it sets the defaults of model, tokens and
# evaluation_tokens, stage_ranks[STAGE], and the programs' options in model_options, block_options and lora_options;
# then it calls `linearize "$@"`. Without an argument that checks the plan and submits the stages as a chain of jobs;
# with a stage's name it runs that stage.

readonly requeue_status=85 # by which a program says that it stopped before its end and can go on
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
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
    site_models=${site_models:-$site_scratch/models}
    site_data=${site_data:-$site_scratch/data}
    site_streaming=${LOLCATS_STREAMING:-$site_streaming}
    case $site_streaming in
        0) stages=(hidden block lora eval) other_stages=(convert) ;;
        1) stages=(convert lora eval) other_stages=(hidden block) ;;
        *) die "site_streaming is '$site_streaming'; set it, or LOLCATS_STREAMING, to 0 or 1" ;;
    esac
}

# find_module: `module` is a function of the login shell, which bash does not have where that is another shell.
find_module() {
    local file
    for file in "${MODULESHOME:-}/init/bash" /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
        command -v module >/dev/null && return
        # shellcheck source=/dev/null
        [ ! -r "$file" ] || source "$file" || true
    done
    command -v module >/dev/null || die "bash knows no command 'module', which site_modules needs; read its file in" \
        "the site file (source .../init/bash), or leave site_modules empty"
}

load_modules() {
    [ ${#site_modules[@]} -gt 0 ] || return 0
    set +u # modules of most systems read variables that are not set
    find_module
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

# These end the script, before anything waits in the queue, where a later stage would not find what it needs.

# time_limit: seconds of site_time, in any of Slurm's forms; 0: there is no limit, or the partition's holds.
time_limit() {
    local parts units i seconds=0
    case ${site_time^^} in '' | -1 | INFINITE | UNLIMITED) echo 0 && return ;; esac
    [[ $site_time =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || die "site_time is '$site_time'; give minutes, MM:SS," \
        "HH:MM:SS, D-HH[:MM[:SS]], UNLIMITED, or nothing for the partition's default"
    case $site_time in
        *-*) units=(86400 3600 60 1) ;;
        *:*:*) units=(3600 60 1) ;;
        *) units=(60 1) ;;
    esac
    IFS=-: read -ra parts <<<"$site_time"
    for i in "${!parts[@]}"; do seconds=$((seconds + 10#${parts[i]} * units[i])); done
    echo "$seconds"
}

# A job that is told to stop soon after it began would only be requeued, again and again.
check_time() {
    local seconds
    seconds=$(time_limit)
    [ "$seconds" -eq 0 ] || [ "$seconds" -ge $((3 * site_warning_seconds)) ] ||
        die "site_time is $site_time, and site_warning_seconds $site_warning_seconds: a job is told to stop that long" \
            "before its end; make site_time at least three times as long"
}

# require_file FILE REMEDY
require_file() {
    { [ -f "$1" ] && [ -r "$1" ]; } || die "$1: cannot be read; $2"
}

check_input() {
    local make="make it with tools/tokenize/lolcats_tokenize"
    require_file "$LOLCATS_MODEL/config.json" "download the teacher, or correct LOLCATS_MODEL or site_models"
    require_file "$LOLCATS_TOKENS" "$make, or correct LOLCATS_TOKENS or site_data"
    require_file "$LOLCATS_EVALUATION_TOKENS" "$make, or correct LOLCATS_EVALUATION_TOKENS or site_data"
}

# What stage 1 depends on, as a line.
block_settings() { echo "$LOLCATS_MODEL $LOLCATS_TOKENS ${model_options[*]} ${block_options[*]} ${site_program_options[*]}"; }

# Whether stage 1 was done with these settings and there are no hidden states, which it does not need again: they were
# deleted to make room, or never stored.
is_done_without_hidden() {
    [ ! -e "$work/hidden" ] && [ "$(cat "$work/logs/block.done" 2>/dev/null)" = "$(block_settings)" ]
}

# In the work directory, as the stages are: a lolcats.toml in it holds for all programs.
check_plan() (
    cd "$work" || die "$work: cannot be entered"
    plan=("$site_bin/lolcats_plan" --model "$LOLCATS_MODEL" --tokens "$LOLCATS_TOKENS" --work "$work"
        --plan-ranks "${stage_ranks[lora]}" "${model_options[@]}" "${block_options[@]}" "${lora_options[@]}"
        "${site_plan_options[@]}" "${site_program_options[@]}")
    if [ "$site_streaming" -ne 0 ] || is_done_without_hidden; then plan+=(--plan-streaming); fi
    "${plan[@]}" --plan-check || die "the plan was refused; nothing was submitted"
)

# A variable of the job that submits would be taken for one of the job submitted.
without_job_variables() (
    for name in "${!SLURM_@}"; do
        [ "$name" = SLURM_CONF ] || unset "$name"
    done
    "$@"
)

# read_queue: what waits or runs of this conversion, whose jobs are known by name and work directory.
# - queued[STAGE]: id of its job.
# - dead: ids of jobs that can never begin, since one before them failed.
# - undecided: id of a job that is ending, or of one whose predecessor has ended. The latter looks the same whether that
#   failed or succeeded, until the scheduler gets to it: then it is cancelled, or dead, or waits for something else.
read_queue() {
    local names text name id state reason dependency directory before alive=' '
    names=$(printf ",$conversion.%s" "${stages[@]}" "${other_stages[@]}")
    text=$(squeue --noheader --user="$(id -un)" --name="${names:1}" --sort=i \
        --states=PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING --format='%j|%A|%T|%r|%E|%Z') ||
        die "squeue failed; nothing was submitted: try again"
    queued=() dead=() undecided=''
    while IFS='|' read -r name id state reason dependency directory; do # those submitted first come first
        [ "$directory" = "$work" ] || continue
        before=none
        [[ ! $dependency =~ afterok:([0-9]+) ]] || before=${BASH_REMATCH[1]}
        if [ "$reason" = DependencyNeverSatisfied ] || [[ " ${dead[*]} " == *" $before "* ]]; then
            dead+=("$id")
            continue
        fi
        alive+="$id "
        queued[${name#"$conversion."}]=$id
        [ "$state" != COMPLETING ] || undecided=$id
        [ "$reason" != Dependency ] || [ "$before" = none ] || [[ $alive == *" $before "* ]] || undecided=$id
    done <<<"$text"
}

readonly settle_tries=60 settle_seconds=5 # the scheduler looks at all jobs once a minute, unless told otherwise

# settle_queue: read_queue, until nothing is undecided. It cancels what is dead and nothing else. Slurm is the judge of
# how a job ended: else one whose predecessor has just succeeded might be cancelled, or submitted a second time.
settle_queue() {
    local i
    for ((i = 0; i < settle_tries; i++)); do
        read_queue
        if [ ${#dead[@]} -gt 0 ]; then
            say "cancelled, since a job before failed: ${dead[*]}"
            scancel "${dead[@]}" || true # it may be gone by now
        fi
        [ -n "$undecided" ] || return 0
        [ $i -gt 0 ] || say "waiting until Slurm has noted the end of a job before $undecided"
        sleep $settle_seconds
    done
    die "job $undecided neither ends nor begins; nothing was submitted: see squeue and submit again later, or cancel it"
}

# submit_stage STAGE PREVIOUS: prints the id of a new job for it, which begins when job PREVIOUS, if any, has succeeded.
submit_stage() {
    local stage=$1 previous=$2 ranks=${stage_ranks[$1]}
    local nodes=$(((ranks + site_ranks_per_node - 1) / site_ranks_per_node))
    local per_node=$(((ranks + nodes - 1) / nodes))
    local options=(--parsable --job-name="$conversion.$stage" --chdir="$work" --output="$work/logs/%x-%j.log"
        --open-mode=append --nodes="$nodes" --ntasks="$ranks" --ntasks-per-node="$per_node"
        --cpus-per-task="$site_cpus_per_rank" --signal="B:USR1@$site_warning_seconds" --requeue)
    [ -z "$site_time" ] || options+=(--time="$site_time")
    [ -z "$previous" ] || options+=(--dependency="afterok:$previous" --kill-on-invalid-dep=yes)
    [ -z "$site_partition" ] || options+=(--partition="$site_partition")
    [ -z "$site_account" ] || options+=(--account="$site_account")
    [ "$site_gpus_per_node" -eq 0 ] || options+=(
        --gpus-per-node="$(((per_node * site_gpus_per_node + site_ranks_per_node - 1) / site_ranks_per_node))")
    # --export=ALL comes last: LOLCATS_SITE and its like are all that a stage knows of its submission.
    without_job_variables sbatch "${options[@]}" "${site_sbatch_options[@]}" --export=ALL \
        "$root/jobs/$conversion.sh" "$stage" | cut -d';' -f1
}

# Submits the stages after the last one that is queued: all of them, none, or those that an earlier submission did not
# get to.
submit_chain() {
    local -A queued
    local dead undecided i id stage previous='' begin=0
    settle_queue
    for stage in "${other_stages[@]}"; do
        [ -z "${queued[$stage]:-}" ] || die "$stage is queued, as job ${queued[$stage]}: let it end, or cancel it, or" \
            "set site_streaming as it was"
    done
    for i in "${!stages[@]}"; do
        id=${queued[${stages[i]}]:-}
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

# Slurm's warning that the time is nearly up reaches this shell alone: the launcher hands it on to the ranks. It may
# come while there is no launcher: before the first program of a stage, or between two.
warned=0
ended=0
launcher=
pass_warning() {
    warned=1
    say "told to stop${launcher:+; the ranks are told as well}"
    [ -z "$launcher" ] || kill -USR1 "$launcher" 2>/dev/null || true
}
trap pass_warning USR1

# By which of its ways Slurm's PMIx plugin lets ranks wait for one another in MPI_Init. With fewer nodes than TreeWidth
# "tree", and so the default, waits for none of another node: a message may reach a rank that is not ready, which
# crashes.
export SLURM_PMIX_FENCE=ring

# Else NCCL_DEBUG would have NCCL write to standard output, where scores are.
export NCCL_DEBUG_FILE=${NCCL_DEBUG_FILE:-/dev/stderr}

# launch OPTIONS...: runs the command on the stage's ranks and returns its status.
launch() {
    local command status=0
    case $site_launcher in
        # --export=ALL: not what a job that was submitted with --export=NONE leaves in SLURM_EXPORT_ENV
        srun) command=(srun --ntasks="$ranks" --cpus-per-task="$site_cpus_per_rank" --export=ALL
            "${site_srun_options[@]}") ;;
        mpirun) command=(mpirun -n "$ranks" "${site_mpirun_options[@]}") ;;
        *) die "site_launcher is '$site_launcher'; set it to srun or mpirun" ;;
    esac
    "${command[@]}" "$@" &
    launcher=$!
    trap 'ended=1' TERM # cancelled or requeued: Slurm tells the ranks itself
    [ $warned -eq 0 ] || pass_warning # it came in the moment before
    while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || true; done # a signal ends `wait`, not the launcher
    wait "$launcher" || status=$?
    launcher=
    trap - TERM
    return "$status"
}

# Slurm numbers a job's steps from 0 again when it starts the job again. But a launcher of an earlier start, woken on a
# node that was given up, ends its step by number, and a node that died keeps the socket of a step: no number is used
# twice.
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
    [ $warned -eq 0 ] || requeue "told to stop before $program began"
    done_file=$work/logs/$program.done.${SLURM_JOB_ID:-$$}.${SLURM_RESTART_COUNT:-0}
    rm -f "$done_file" # of a shell that was killed, if this one has its number
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
    if [ "$result" -nt "$work/lora/adapter_config.json" ] && [ "$result" -nt "$work/lora/adapter_model.safetensors" ] &&
        [ "$result" -nt "$LOLCATS_EVALUATION_TOKENS" ]; then
        return
    fi
    rm -f "$result".tmp.*
    run_program eval --tokens "$LOLCATS_EVALUATION_TOKENS" "$@" >"$part"
    grep -v '^{' "$part" >&2 || true # what libraries say there: NCCL its version, whatever NCCL_DEBUG_FILE is
    grep '^{' "$part" >"$part.json"
    mv "$part.json" "$result"
    rm "$part"
}

run_stage() {
    local stage=$1 ranks=${stage_ranks[$1]}
    cd "$work" || die "$work: cannot be entered"
    skip_used_steps
    case $stage in
        hidden)
            if is_done_without_hidden; then
                say "stage 1 is done and there are no hidden states: none are computed again"
            else
                run_program hidden --tokens "$LOLCATS_TOKENS" --work "$work"
            fi
            ;;
        block)
            run_program block --tokens "$LOLCATS_TOKENS" --work "$work" "${block_options[@]}"
            block_settings >"$work/logs/block.done"
            ;;
        convert)
            run_program convert --tokens "$LOLCATS_TOKENS" --work "$work" "${block_options[@]}"
            block_settings >"$work/logs/block.done"
            ;;
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
        check_time
        check_input
        check_plan
        submit_chain
    elif [ $# -eq 1 ] && [ -n "${stage_ranks[$1]:-}" ]; then
        run_stage "$1"
    else
        die "'$*' is no stage; give one of ${stages[*]}, or nothing to submit them all"
    fi
}
