#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests. Safe to run again.
#   tools/test.sh [--all] [ctest arguments]
# --all also runs the unit tests with sanitizers, and makes the build for GPUs where nvcc is: each a build of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/tools/setup.sh"
choice=(--exclude-regex '^sanitizers$')
if [ "${1:-}" = --all ]; then
    shift
    choice=()
    "$root/tools/setup.sh" "$(nvidia-smi -L >/dev/null 2>&1 && echo --cuda || echo --cuda-check)"
fi
cd "$root/build"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# Many tests wait for other processes half of their time.
ctest --output-on-failure --parallel $(($(nproc) * 3 / 2)) "${choice[@]}" "$@" 2>&1 | tee "$log" || status=$?
# ctest lists skipped tests after its summary; the summary is what to see last.
grep -E '^[0-9]+% tests passed' "$log" | tail -n 1
exit "$status"
