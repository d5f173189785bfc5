#!/usr/bin/env bash
# Builds the CUDA kernels' tests and benchmark with nvcc alone, to be carried to a machine that has a GPU and its driver and
# nothing else.  usage: build_cuda_kernels.sh OUTPUT_DIR [ARCHITECTURE, such as sm_90]
set -euo pipefail
mkdir -p "$1"
out="$(cd "$1" && pwd)"
cd "$(dirname "$0")/.."
flags=(-std=c++20 -O3 "-arch=${2:-sm_90}" -lineinfo -Xcompiler=-Wall,-Wextra -I. -Iinclude -cudart static)
compile() { # SOURCE: its object beside the log of registers and spills
    local object="$out/$(basename "$1").o"
    nvcc "${flags[@]}" -Xptxas=-v -x cu -c "$1" -o "$object" >"$object.log" 2>&1 || { cat "$object.log"; exit 1; }
    if grep -i warning "$object.log"; then exit 1; fi
}
link() { # PROGRAM SOURCES... -- FLAGS...
    local program="$1" objects=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do objects+=("$out/$(basename "$1").o") && shift; done
    nvcc "${flags[@]}" "${objects[@]}" -o "$out/$program" "${@:2}"
}

kernels=(kernels/*.cu kernels/cuda/*.cu)
tests=(tests/kernels/cuda/*.cpp)
for source in "${kernels[@]}" "${tests[@]}" tools/bench/attention_cuda.cu; do compile "$source"; done
link test_cuda_kernels "${kernels[@]}" "${tests[@]}" -- -lgtest -lgtest_main
link attention_cuda "${kernels[@]}" tools/bench/attention_cuda.cu --
