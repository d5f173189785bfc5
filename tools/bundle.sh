#!/usr/bin/env bash
# Puts programs and every library they need beside each other, to be run on a Linux machine without MPI, HDF5 or a compiler.
#   tools/bundle.sh OUTPUT_DIR PROGRAM...
# OUTPUT_DIR/run PROGRAM ARGUMENTS... then runs one, on one rank. Left out are the C library, NVIDIA's driver, and cuBLASLt and
# NCCL, which come with CUDA or PyTorch.
set -euo pipefail
out=$(realpath -m "${1:?usage: bundle.sh OUTPUT_DIR PROGRAM...}")
shift
[ ! -e "$out" ] || [ -e "$out/run" ] || { echo "bundle.sh: error: $out is no bundle; name another directory" >&2; exit 1; }
plugins=$(ompi_info --parsable --path pkglibdir 2>/dev/null | sed 's/.*://' || true)
[ -d "$plugins" ] || { echo "bundle.sh: error: ompi_info names no plugins of Open MPI; install it" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
prefix=$(ompi_info --parsable --path prefix | sed 's/.*://')
home=$out/openmpi
mkdir -p "$home/${plugins#"$prefix"/}"
for program in "$@"; do strip -o "$out/bin/$(basename "$program")" "$program"; done
cp -L "$plugins"/mca_*.so "$home/${plugins#"$prefix"/}"
missing=$(find "$out/bin" -type f -print0 | xargs -0 ldd 2>/dev/null | awk '/not found/ && !/lib(cuda|nccl|cublas)/ { print $1 }')
[ -z "$missing" ] || { echo "bundle.sh: error: not found: $missing; install what the programs were built with" >&2; exit 1; }
find "$out/bin" "$home" -type f -print0 | xargs -0 ldd 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|cuda|nccl|cublas|cublasLt))\.so' |
    while read -r library; do cp -L "$library" "$out/lib"; done
cat > "$out/run" <<'RUN'
#!/bin/sh
# run PROGRAM ARGUMENTS...
here=$(cd "$(dirname "$0")" && pwd)
program=$(basename "$1")
shift
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OPAL_PREFIX="$here/openmpi" \
    OMPI_MCA_ess_singleton_isolated=1 OMPI_MCA_orte_create_session_dirs=0 \
    OMPI_MCA_mca_base_component_show_load_errors=0 OMPI_MCA_btl=self OMPI_MCA_pml=ob1
exec "$here/bin/$program" "$@"
RUN
chmod +x "$out/run"
du -sh "$out"
