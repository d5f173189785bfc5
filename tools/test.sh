#!/usr/bin/env bash
# Installs what is missing, builds for the CPU and, where nvcc is, for GPUs, and runs all tests. Safe to run again.
#   tools/test.sh [ctest arguments]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/tools/setup.sh"
"$root/tools/setup.sh" --cuda
cd "$root/build"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
ctest --output-on-failure --parallel "$(nproc)" "$@" 2>&1 | tee "$log" || status=$?
# ctest lists skipped tests after its summary; the summary is what to see last.
grep -E '^[0-9]+% tests passed' "$log" | tail -n 1
exit "$status"
