#!/usr/bin/env bash
# Builds what tools/bench/gpu_checks.sh runs, to be carried to a machine with a GPU, its driver and cuBLASLt of the CUDA
# version used here: no MPI, HDF5 or Kokkos is needed there.
#   Kokkos_ROOT=... tools/build_gpu_checks.sh [OUTPUT_DIR]    (Kokkos with its CUDA backend; tools/setup.sh --cuda makes one)
# OUTPUT_DIR is build-checks by default, which git ignores. The tiny conversion goes along in one archive: its programs with
# the libraries they need, its files, and what a CPU gets.
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

programs=(lolcats_hidden lolcats_block lolcats_lora lolcats_eval test_comm)
cmake --preset cuda -B build-carried-programs -DLOLCATS_NATIVE=OFF
cmake --build build-carried-programs --target "${programs[@]}"
tiny=$(mktemp -d)
trap 'rm -rf "$tiny"' EXIT
tools/bundle.sh "$tiny/programs" "${programs[@]/#/build-carried-programs/bin/}"
mkdir -p "$tiny/tools/bench" "$tiny/tests/data"
cp -rp tools/tiny tools/quickstart.sh "$tiny/tools"
cp -p tools/bench/tiny_run.sh tools/bench/compare_tiny.py "$tiny/tools/bench"
cp -rp tests/data/tiny "$tiny/tests/data"
Kokkos_ROOT='' tools/setup.sh programs
LOLCATS_BIN=$PWD/build/bin LOLCATS_LAUNCHER='' tools/bench/tiny_run.sh "$tiny/cpu"
mkdir "$tiny/gpu"
cp -p "$tiny"/cpu/*.h5 "$tiny/gpu"
rm -r "$tiny"/cpu/*/hidden "$tiny"/cpu/*.h5
tar -C "$tiny" -c . | xz --lzma2=dict=64MiB >"$out/tiny.tar.xz"
du -ch "$out"/* | tail -1
