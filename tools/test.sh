#!/usr/bin/env bash
# Installs what is missing, builds for the CPU and, where nvcc is, for GPUs, and runs all tests. Safe to run again.
#   tools/test.sh [ctest arguments]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/tools/setup.sh"
"$root/tools/setup.sh" --cuda
cd "$root/build"
exec ctest --output-on-failure --parallel "$(nproc)" "$@"
