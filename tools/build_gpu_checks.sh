#!/usr/bin/env bash
# Builds what tools/bench/gpu_checks.sh runs, to be carried to a machine with a GPU, its driver and cuBLASLt of the CUDA
# version used here: no MPI, HDF5 or Kokkos is needed there.
#   Kokkos_ROOT=... tools/build_gpu_checks.sh [OUTPUT_DIR]    (Kokkos with its CUDA backend; tools/setup.sh --cuda makes one)
# OUTPUT_DIR is build-checks by default, which git ignores.
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../build-checks}")
mkdir -p "$out"
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/cuda/bin NVCC_WRAPPER_DEFAULT_COMPILER=${NVCC_WRAPPER_DEFAULT_COMPILER:-g++}
export Kokkos_ROOT=${Kokkos_ROOT:-${LOLCATS_CACHE:-$HOME/.cache/lolcats-hpc}/kokkos-4.5.01-cuda90}
programs=(block_405b attention_cuda test_cuda_kernels test_kernels)
cmake --preset cuda -B build-carried -DLOLCATS_KERNELS_ONLY=ON -DLOLCATS_NATIVE=OFF
cmake --build build-carried --target "${programs[@]}"
for program in "${programs[@]}"; do strip -o "$out/$program" "build-carried/bin/$program"; done
cp tools/bench/gpu_checks.sh tools/bench/attention_torch.py "$out"
du -ch "$out"/* | tail -1
