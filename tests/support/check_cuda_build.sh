#!/usr/bin/env bash
# Whether the build for GPUs is there, whose tests are then listed as cuda.*; skipped with the reason where it is not.
#   check_cuda_build.sh BUILD_DIR
set -euo pipefail
if [ -x "$1/bin/test_kernels" ]; then
    echo "$1 holds the build for GPUs"
elif ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
    echo "skipped: no nvcc on this machine, so there is no build for GPUs"
    exit 77
else
    echo "skipped: no build for GPUs in $1; tools/setup.sh --cuda makes it"
    exit 77
fi
