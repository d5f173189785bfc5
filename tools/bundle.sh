#!/usr/bin/env bash
# Puts programs and every library they need beside each other, to be run on a Linux machine without MPI, HDF5 or a compiler.
#   tools/bundle.sh OUTPUT_DIR PROGRAM...
# OUTPUT_DIR/run PROGRAM ARGUMENTS... then runs one, on one rank. Left out are the C library, NVIDIA's driver, and cuBLASLt and
# NCCL, which come with CUDA or PyTorch.
set -euo pipefail
out=$(realpath -m "${1:?usage: bundle.sh OUTPUT_DIR PROGRAM...}")
shift
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
plugins=$(ompi_info --parsable --path pkglibdir 2>/dev/null | sed 's/.*://')
[ -d "$plugins" ] || { echo "bundle.sh: error: ompi_info names no directory of Open MPI's plugins; install Open MPI" >&2; exit 1; }
prefix=$(ompi_info --parsable --path prefix | sed 's/.*://')
home=$out/openmpi
mkdir -p "$home/${plugins#"$prefix"/}"
for program in "$@"; do strip -o "$out/bin/$(basename "$program")" "$program"; done
cp -L "$plugins"/mca_*.so "$home/${plugins#"$prefix"/}"
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
    OMPI_MCA_mca_base_component_show_load_errors=0 OMPI_MCA_btl=self OMPI_MCA_pml=ob1
exec "$here/bin/$program" "$@"
RUN
chmod +x "$out/run"
du -sh "$out"
