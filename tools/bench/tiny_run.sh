#!/usr/bin/env bash
# The tiny conversion, and 50 steps of attention transfer on the exact path: what compare_tiny.py sets side by side.
#   tiny_run.sh WORK_DIR       with what tools/quickstart.sh takes from the environment
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:?usage: tiny_run.sh WORK_DIR}
bin=${LOLCATS_BIN:-$root/build/bin}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_hwloc_base_binding_policy=none
read -r -a launcher <<<"${LOLCATS_LAUNCHER-mpirun -n 2}"
"$root/tools/quickstart.sh" "$work"
cd "$work"
"${launcher[@]}" "$bin/lolcats_block" --config lolcats.toml --model "$root/tests/data/tiny/model" --tokens train.h5 \
    --work exact --block-layers 0 --dtype f32 --steps 50 --eval-every 50
