#!/usr/bin/env bash
# Installs what the build needs on Debian 12 and builds it in build/. Safe to run again: what is there is kept.
#   tools/setup.sh [--cuda|--cuda-check] [TARGET [-DNAME=VALUE...]]     (default: everything; `programs` leaves out the tests)
# --cuda builds for NVIDIA GPUs (Hopper) in build-cuda/, where nvcc is found; --cuda-check only to see that it compiles.
# LOLCATS_CACHE (default ~/.cache/lolcats-hpc) keeps the compiled Kokkos; set Kokkos_ROOT to use one of your own, and
# LOLCATS_KOKKOS_CUDA one of your own with its CUDA backend.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
flavour=cpu
build=$root/build
if [ "${1:-}" = --cuda ] || [ "${1:-}" = --cuda-check ]; then
    flavour=${1#--}
    build=$root/build-cuda
    shift
fi
cache=${LOLCATS_CACHE:-$HOME/.cache/lolcats-hpc}
packages=(g++ cmake ninja-build git python3-pip libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools libdnnl-dev
    libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libxxhash-dev libgtest-dev libgmock-dev libbenchmark-dev
    python3-h5py python3-numpy python3-xxhash python3-matplotlib clang-format mandoc)
slurm_packages=(munge slurmctld slurmd slurm-client) # for the tests of the job scripts, which are skipped without them

# install_packages PACKAGE...: those that are missing.
install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    echo "installing: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# Debian has no usable Kokkos. The source distribution of pycompadre carries the whole source of Kokkos 4.5.01.
#   install_kokkos PREFIX [CMAKE ARGUMENT...]      (@source@ in an argument becomes the source's directory)
install_kokkos() ( # a shell of its own: what it leaves behind is removed however it ends
    prefix=$1
    shift
    [ -f "$prefix/.complete" ] && exit
    echo "building Kokkos 4.5.01 in $prefix"
    source=$(mktemp -d)
    trap 'rm -rf "$source"' EXIT
    python3 -m pip download -q --no-deps -d "$source" pycompadre==1.7.6
    tar -xzf "$source"/pycompadre-*.tar.gz -C "$source"
    cmake -S "$source"/pycompadre-1.7.6/kokkos -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_UNITY_BUILD=ON -DCMAKE_CXX_STANDARD=20 -DKokkos_ENABLE_OPENMP=ON -DKokkos_ENABLE_SERIAL=ON \
        -DCMAKE_INSTALL_PREFIX="$prefix" "${@//@source@/$source/pycompadre-1.7.6/kokkos}" >/dev/null
    cmake --build "$source/build" --target install >/dev/null
    touch "$prefix/.complete"
)

# Kokkos 4.5.01 predates CUDA 13: see the included file. Without -arch, nvcc_wrapper asks for one that CUDA 13 dropped.
install_kokkos_cuda() {
    install_kokkos "$1" -DKokkos_ENABLE_CUDA=ON -DKokkos_ARCH_HOPPER90=ON \
        -DCMAKE_CXX_COMPILER=@source@/bin/nvcc_wrapper \
        "-DCMAKE_CXX_FLAGS=-arch=sm_90 -include $root/tools/kokkos_cuda13.hpp"
}

if [ $flavour != cpu ]; then
    export PATH=$PATH:/usr/local/cuda/bin NVCC_WRAPPER_DEFAULT_COMPILER=g++
    if ! command -v nvcc >/dev/null; then
        echo "no build for GPUs: nvcc is not on this machine; install the CUDA toolkit (12 or later) to have one"
        exit 0
    fi
fi
install_packages "${packages[@]}"
install_packages "${slurm_packages[@]}" || echo "no tests of the job scripts: Slurm cannot be installed"
if [ $flavour != cpu ]; then
    export Kokkos_ROOT=${LOLCATS_KOKKOS_CUDA:-$cache/kokkos-4.5.01-cuda90}
    [ -n "${LOLCATS_KOKKOS_CUDA:-}" ] || install_kokkos_cuda "$Kokkos_ROOT"
elif [ -z "${Kokkos_ROOT:-}" ]; then
    export Kokkos_ROOT=$cache/kokkos-4.5.01
    install_kokkos "$Kokkos_ROOT"
fi
# A build from nothing reads headers once for many sources. One that is there is left as its owner configured it, and is as
# good a check as any.
kind=(--preset "$flavour")
if [ ! -f "$build/CMakeCache.txt" ]; then
    kind+=(-DCMAKE_UNITY_BUILD=ON)
elif [ "$flavour" = cuda-check ]; then
    kind=()
fi
cmake "${kind[@]}" -S "$root" -B "$build" "${@:2}" >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; exit 1; }
cmake --build "$build" --target "${1:-all}"
