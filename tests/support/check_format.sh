#!/usr/bin/env bash
# Fails where clang-format would change a C++ source.  usage: check_format.sh SOURCE_DIR CLANG_FORMAT
set -euo pipefail
if [ ! -x "${2:-}" ]; then
    echo "clang-format is not installed"
    exit 0
fi
cd "$1"
find include kernels io src tests tools \( -name '*.?pp' -o -name '*.cu' -o -name '*.cuh' \) -print0 | xargs -0 "$2" --dry-run -Werror
