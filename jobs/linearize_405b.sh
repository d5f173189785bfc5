#!/usr/bin/env bash
# Llama 3.1 405B: 126 layers as 14 blocks of 9, one block a GPU in every stage.
# The whole conversion, from the repository's root:
#   sbatch jobs/linearize_405b.sh
# This short job checks the plan and submits the stages as jobs that follow one another: see docs/cluster.md.
#SBATCH --job-name=linearize_405b
#SBATCH --dependency=singleton
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=00:15:00
#SBATCH --output=%x-%j.log
set -euo pipefail
conversion=linearize_405b
root=$PWD # a job may also run elsewhere than where sbatch was called
[ -r "$root/jobs/common.sh" ] || root=${SLURM_SUBMIT_DIR:-$PWD}
# shellcheck source=jobs/common.sh
source "${LOLCATS_ROOT:-$root}/jobs/common.sh"

load_site
model=$site_models/Llama-3.1-405B
tokens=$site_data/redpajama_20m_1024.h5
evaluation_tokens=$site_data/redpajama_validation_1024.h5
stage_ranks=([hidden]=14 [block]=14 [convert]=14 [lora]=14 [eval]=14)

model_options=(--block-layers 9 --window 64 --attention terrace --feature-map hedgehog --dtype bf16)
training_options=(--epochs 1 --batch-size 64 --validation 32 --clip 1 --schedule plateau --plateau-factor 0.1
    --plateau-patience 10 --min-lr 1e-5 --eval-every 100)
block_options=("${training_options[@]}" --lr 1e-2 --mse-factor 1000 --xent-factor 1)
lora_options=("${training_options[@]}" --lr 1e-4 --lora-rank 4 --lora-alpha 8 --lora-dropout 0.5)
linearize "$@"
