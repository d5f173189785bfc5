#!/usr/bin/env bash
# Installs what the build needs on Debian 12 and builds it in build/. Safe to run again: what is there is kept.
#   tools/setup.sh [TARGET]          (default: everything; `programs` leaves out the tests)
# LOLCATS_CACHE (default ~/.cache/lolcats-hpc) keeps the compiled Kokkos; set Kokkos_ROOT to use one of your own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
cache=${LOLCATS_CACHE:-$HOME/.cache/lolcats-hpc}
packages=(g++ cmake ninja-build git python3-pip libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools libdnnl-dev
    libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libgtest-dev libgmock-dev libbenchmark-dev
    python3-h5py python3-numpy python3-xxhash python3-matplotlib clang-format)
[ "${1:-}" = programs ] || packages+=(munge slurmctld slurmd slurm-client) # the tests of the job scripts run a Slurm

install_packages() {
    local missing=()
    for package in "${packages[@]}"; do
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
install_kokkos() {
    local prefix=$1 source
    [ -f "$prefix/.complete" ] && return
    echo "building Kokkos 4.5.01 in $prefix"
    source=$(mktemp -d)
    trap 'rm -rf "$source"' RETURN
    python3 -m pip download -q --no-deps -d "$source" pycompadre==1.7.6
    tar -xzf "$source"/pycompadre-*.tar.gz -C "$source"
    cmake -S "$source"/pycompadre-1.7.6/kokkos -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_CXX_STANDARD=20 -DKokkos_ENABLE_OPENMP=ON -DKokkos_ENABLE_SERIAL=ON \
        -DCMAKE_INSTALL_PREFIX="$prefix" >/dev/null
    cmake --build "$source/build" --target install >/dev/null
    touch "$prefix/.complete"
}

install_packages
if [ -z "${Kokkos_ROOT:-}" ]; then
    export Kokkos_ROOT=$cache/kokkos-4.5.01
    install_kokkos "$Kokkos_ROOT"
fi
cmake -S "$root" -B "$build" -G Ninja >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; exit 1; }
cmake --build "$build" --target "${1:-all}"
