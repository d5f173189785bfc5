#!/usr/bin/env bash
# Programs of the build for GPUs start on any machine: the plan needs no GPU, and where there is none the others say so
# in one line and fail.   check_cuda_programs.sh BIN_DIR MODEL
set -euo pipefail
bin=$1
model=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
fail() { echo "FAILED: $*"; cat err; exit 1; }

"$bin/lolcats_plan" --model "$model" >out 2>err || fail "lolcats_plan does not run"
grep -q layers out || fail "lolcats_plan prints no plan"
if nvidia-smi -L >/dev/null 2>&1; then
    echo "there is a GPU here: nothing to refuse"
    exit 0
fi
for program in hidden block lora eval; do
    ! "$bin/lolcats_$program" --model "$model" --tokens none.h5 >out 2>err || fail "lolcats_$program runs without a GPU"
    [ "$(grep -c "error: no GPU" err)" -eq 1 ] || fail "lolcats_$program does not say that there is no GPU"
done
