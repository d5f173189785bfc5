#!/usr/bin/env bash
# Llama 3.1 70B: 80 layers as 16 blocks of 5; two blocks a GPU, on one node of 8.
# The whole conversion, from the repository's root:
#   sbatch jobs/linearize_70b.sh
# This short job checks the plan and submits the stages as jobs that follow one another: see docs/cluster.md.
#SBATCH --job-name=linearize_70b
#SBATCH --dependency=singleton
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=00:15:00
#SBATCH --output=%x-%j.log
set -euo pipefail
conversion=linearize_70b
root=$PWD # a job may also run elsewhere than where sbatch was called
[ -r "$root/jobs/common.sh" ] || root=${SLURM_SUBMIT_DIR:-$PWD}
# shellcheck source=jobs/common.sh
source "${LOLCATS_ROOT:-$root}/jobs/common.sh"

load_site
model=$site_models/Llama-3.1-70B
tokens=$site_data/redpajama_20m_1024.h5
evaluation_tokens=$site_data/redpajama_validation_1024.h5
stage_ranks=([hidden]=8 [block]=8 [convert]=8 [lora]=8 [eval]=8)

model_options=(--block-layers 5 --window 64 --attention terrace --feature-map hedgehog --dtype bf16)
training_options=(--epochs 1 --batch-size 64 --validation 32 --clip 1 --schedule plateau --plateau-factor 0.1
    --plateau-patience 10 --min-lr 1e-5 --eval-every 100)
block_options=("${training_options[@]}" --lr 1e-2 --mse-factor 1000 --xent-factor 0)
lora_options=("${training_options[@]}" --lr 1e-4 --lora-rank 8 --lora-alpha 16 --lora-dropout 0)
linearize "$@"
