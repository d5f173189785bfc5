#!/bin/bash
# Usage: test_program.sh PROGRAM RANKS [MPIRUN...]
# Runs failing_program on RANKS ranks and checks that a failure is one line on stderr and a non-zero exit status.
set -uo pipefail

program=$(realpath "$1")
ranks=$2
shift 2
launch=("${@:-mpirun}" -n "$ranks")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1
bad=0

complain() {
    echo "FAILED ($ranks ranks): $*" >&2
    sed 's/^/    /' out err >&2
    bad=1
}

# run FAILURE ARGUMENT...: leaves the output in out and err, the status in $status
run() {
    FAILURE=$1 timeout 60 "${launch[@]}" "$program" "${@:2}" >out 2>err
    status=$?
}

# expect_error TEXT: one error line that holds TEXT, nothing on stdout, a status that is neither 0 nor the time limit's
expect_error() {
    local lines
    lines=$(grep -c 'failing_program: error: ' err)
    [[ $lines == 1 ]] || complain "$lines error lines for '$1'"
    grep -q "failing_program: error: .*$1" err || complain "no error line with '$1'"
    [[ $status != 0 && $status != 124 ]] || complain "exit status $status for '$1'"
    [[ ! -s out ]] || complain "something on stdout for '$1'"
}

run none
if grep 'error: no GPU' err; then # a build for GPUs: ctest counts this as skipped
    exit 0
fi
[[ $status == 0 ]] || complain "exit status $status of a good run"
grep -q "^ran on $ranks ranks\$" out || complain "a good run did not run on $ranks ranks"
[[ $(wc -l <out) == 1 ]] || complain "stdout holds more than the result"
[[ $(grep -c 'block-layers' err) == 1 ]] || complain "the resolved settings are not printed once"

run none --done-file=done
[[ $(cat done) == failing_program ]] || complain "a good run does not write its done file"
run one --done-file=not_done
expect_error 'file.h5: broken: mend it'
[[ ! -e not_done ]] || complain "a run that failed wrote its done file"

run all
expect_error 'file.h5: broken: mend it'
run one
expect_error 'file.h5: broken: mend it'
[[ $ranks == 1 ]] || grep -q "mend it \[rank $((ranks - 1))\]\$" err || complain "the rank is not named"
for failure in memory array; do
    run $failure
    expect_error 'out of memory: use more ranks'
done
run strange
expect_error 'two lines'
run number
expect_error 'unknown type'

run printed
[[ $status != 0 && $status != 124 ]] || complain "exit status $status of a run that failed after it printed"
grep -q '^a result$' out || complain "what was printed before a failure is lost"

# Results that cannot be written are a failure, and mpirun would write them itself.
if [[ $ranks == 1 && -w /dev/full ]]; then
    : >out
    FAILURE=none timeout 60 "$program" --done-file=not_done >/dev/full 2>err
    status=$?
    expect_error 'standard output: '
    [[ ! -e not_done ]] || complain "a run whose results are lost wrote its done file"
    timeout 60 "$program" --help >/dev/full 2>err
    status=$?
    expect_error 'standard output: '
    FAILURE=none timeout 60 "$program" >out 2>/dev/full || complain "a run without stderr fails"
    grep -q '^ran on 1 ranks$' out || complain "a run without stderr has no result"
fi

# A rank that dies ends all others within a minute, whatever they wait for; one that hangs, after the time given.
if [[ $ranks -gt 1 ]]; then
    declare -A what=([sum]='a sum over ranks' [broadcast]='a broadcast' [receive]='a message from another rank'
        [send]='a message to another rank' [agreement]='what the ranks agree on')
    timeout=0.5
    ! nvidia-smi -L >/dev/null 2>&1 || timeout=5 # NCCL needs seconds to connect
    for operation in "${!what[@]}"; do
        run "killed in a $operation"
        [[ $status != 0 && $status != 124 ]] || complain "exit status $status where a rank is killed in a $operation"
        run "silent in a $operation" --communication-timeout=$timeout
        expect_error "all ranks: ${what[$operation]} was not over after $timeout s.*--communication-timeout"
    done
fi

if [[ $ranks -gt 1 ]]; then
    status=0
    FAILURE=none timeout 60 "${launch[0]}" -n 1 "$program" --window=32 : -n $((ranks - 1)) "$program" --window=16 >out 2>err || status=$?
    expect_error 'window is 16 on rank 1, but 32 on rank 0'
    [[ $status == 1 ]] || complain "exit status $status where ranks have different settings"
    ! grep -q MPI_ABORT err || complain "different settings abort MPI"
fi

run none --windwo=3
expect_error "did you mean '--window'?"
[[ $status == 1 ]] || complain "exit status $status for a bad option"
! grep -q MPI_ABORT err || complain "a bad option aborts MPI"
run none --config=none.toml
expect_error 'none.toml'

run none --help
[[ $status == 0 ]] || complain "exit status $status of --help"
[[ $(grep -c -- '--block-layers' out) == 1 ]] || complain "--help is not printed once"
[[ ! -s err ]] || complain "--help prints on stderr"

exit $bad
