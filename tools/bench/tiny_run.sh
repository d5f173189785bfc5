#!/usr/bin/env bash
# The tiny conversion, and 50 steps of attention transfer on the exact path: what compare_tiny.py sets side by side.
#   tiny_run.sh WORK_DIR       with LOLCATS_BIN and what else tools/quickstart.sh takes from the environment
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:?usage: tiny_run.sh WORK_DIR}
read -r -a launcher <<<"${LOLCATS_LAUNCHER-mpirun -n 2}"
"$root/tools/quickstart.sh" "$work"
cd "$work"
"${launcher[@]}" "$LOLCATS_BIN/lolcats_block" --config lolcats.toml --model "$root/tests/data/tiny/model" --tokens train.h5 \
    --work exact --block-layers 0 --dtype f32 --steps 50 --eval-every 50
