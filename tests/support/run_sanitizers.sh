#!/usr/bin/env bash
# Builds the unit tests with the address and undefined-behaviour sanitizers and runs them.
#   run_sanitizers.sh SOURCE_DIR BUILD_DIR KOKKOS_DIR
set -euo pipefail
# OpenMPI, HDF5 and oneDNN keep memory until exit.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1
cmake --preset asan -S "$1" -B "$2" -DKokkos_DIR="$3" >/dev/null
cmake --build "$2" --target test_kernels test_cuda_kernels_on_host test_core test_io test_comm
cd "$2/bin"
# One after the other would leave processors idle: at the end no other test is left to run beside them.
./test_kernels --gtest_brief=1 &
./test_cuda_kernels_on_host --gtest_brief=1 --gtest_filter=-*AllFeatureMaps:*EachHeadsKeys:*CrossEntropyAgreesForAllSizes &
./test_core --gtest_brief=1 &
mpirun -n 2 ./test_io --gtest_brief=1 &
mpirun -n 2 ./test_comm --gtest_brief=1 &
status=0
for test in $(jobs -p); do wait "$test" || status=1; done
exit $status
