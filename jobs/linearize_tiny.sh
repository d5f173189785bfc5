#!/usr/bin/env bash
# The tiny teacher of the repository, in a few minutes: tries out a cluster and its site file.
# The whole conversion, from the repository's root:
#   sbatch jobs/linearize_tiny.sh
# This short job checks the plan and submits the stages as jobs that follow one another: see docs/cluster.md.
#SBATCH --job-name=linearize_tiny
#SBATCH --dependency=singleton
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=00:15:00
#SBATCH --output=%x-%j.log
set -euo pipefail
conversion=linearize_tiny
root=$PWD # a job may also run elsewhere than where sbatch was called
[ -r "$root/jobs/common.sh" ] || root=${SLURM_SUBMIT_DIR:-$PWD}
# shellcheck source=jobs/common.sh
source "${LOLCATS_ROOT:-$root}/jobs/common.sh"

load_site
model=$root/tests/data/tiny/model
tokens=$site_scratch/linearize_tiny/train.h5
evaluation_tokens=$site_scratch/linearize_tiny/validation.h5
stage_ranks=([hidden]=2 [block]=2 [convert]=2 [lora]=2 [eval]=2)

model_options=(--block-layers 2 --window 16 --feature-dim 32 --dtype bf16)
training_options=(--batch-size 8 --micro-batch 8 --validation 32)
block_options=("${training_options[@]}" --steps 600 --lr 1e-2)
lora_options=("${training_options[@]}" --steps 300 --lr 1e-3)

# make_corpus FILE SEQUENCES SEED: what is there already is kept.
make_corpus() {
    [ -s "$1" ] && return
    mkdir -p "$(dirname "$1")"
    "$site_python" "$root/tools/tiny/make_corpus.py" --out "$1.part" --sequences "$2" --length 256 --seed "$3"
    mv "$1.part" "$1"
}
load_modules
make_corpus "$tokens" 1600 1
make_corpus "$evaluation_tokens" 200 2

linearize "$@"
