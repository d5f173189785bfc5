#!/usr/bin/env bash
# Installs what is missing, builds, linearises the tiny teacher on two ranks, and prints a table of what it got.
#   tools/quickstart.sh [WORK_DIR]        (default: work/tiny)
# Safe to run again: a step whose result is newer than what it is made from is not repeated. LOLCATS_BIN names programs that are
# built already, LOLCATS_LAUNCHER what starts them in place of "mpirun -n 2" (nothing: one rank), LOLCATS_PYTHON a Python.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$root/work/tiny}
bin=${LOLCATS_BIN:-$root/build/bin}
model=$root/tests/data/tiny/model
python=${LOLCATS_PYTHON:-/usr/bin/python3}
read -r -a launcher <<<"${LOLCATS_LAUNCHER-mpirun -n 2}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_hwloc_base_binding_policy=none

[ -n "${LOLCATS_BIN:-}" ] || "$root/tools/setup.sh" programs
mkdir -p "$work"
cd "$work"

# step RESULT INPUT... -- COMMAND: runs the command unless RESULT is newer than every input.
step() {
    local result=$1 inputs=() fresh=1
    shift
    while [ "$1" != -- ]; do inputs+=("$1"); shift; done
    shift
    [ -s "$result" ] || fresh=0
    for input in "${inputs[@]}"; do [ ! "$input" -nt "$result" ] || fresh=0; done
    [ $fresh -eq 1 ] && return
    echo "== $*"
    "$@"
}
make_corpus() { "$python" "$root/tools/tiny/make_corpus.py" --out "$1.part" "${@:2}" && mv "$1.part" "$1"; }
corpus() { step "$1" "$root/tools/tiny/make_corpus.py" -- make_corpus "$@"; }
program() { "${launcher[@]}" "$bin/$1" --config lolcats.toml --model "$model" "${@:2}"; }
evaluate() {
    program lolcats_eval "${@:2}" >"$1.part" 2>"$1.log" || { cat "$1.log" >&2; return 1; }
    mv "$1.part" "$1"
}
# score NAME INPUT OPTIONS...: perplexity and recall of one row of the table.
score() {
    step "$1.val.json" "$2" -- evaluate "$1.val.json" --tokens val.h5 "${@:3}"
    step "$1.recall.json" "$2" -- evaluate "$1.recall.json" --tokens recall.h5 "${@:3}"
}

[ -f lolcats.toml ] && cmp -s "$root/tools/tiny/lolcats.toml" lolcats.toml || cp "$root/tools/tiny/lolcats.toml" .
corpus train.h5 --sequences 1600 --length 256 --seed 1
corpus val.h5 --sequences 200 --length 256 --seed 2
corpus recall.h5 --sequences 200 --length 256 --seed 2 --labels answers

maps=transfer/transfer/run.json # written when all blocks are done
step transfer/hidden/all.h5 train.h5 lolcats.toml -- program lolcats_hidden --tokens train.h5 --work transfer
step $maps transfer/hidden/all.h5 -- program lolcats_block --tokens train.h5 --work transfer --steps 600
step transfer/lora/adapter_config.json $maps -- \
    program lolcats_lora --tokens train.h5 --work transfer --pipeline-ranks 1 --micro-batch 4 --steps 300 --lr 1e-3
step swap/lora/adapter_config.json train.h5 lolcats.toml -- \
    program lolcats_lora --tokens train.h5 --work swap --pipeline-ranks 1 --micro-batch 4 --steps 300 --lr 1e-3 --train-feature-maps

score teacher val.h5 --attention teacher
score swap_only lolcats.toml --attention terrace
score transfer_only $maps --feature-maps transfer/transfer
score lora_only swap/lora/adapter_model.safetensors --feature-maps swap/lora/feature_maps.safetensors --adapter swap/lora
score transfer_lora transfer/lora/adapter_model.safetensors --feature-maps transfer/transfer --adapter transfer/lora
"$python" "$root/tools/tiny/table.py" "$work"
