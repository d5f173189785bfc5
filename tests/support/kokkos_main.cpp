/// main of test programs without MPI: gtest inside the life of Kokkos. In a build for GPUs, where there is none,
/// nothing is run and one line that ctest takes for a skipped test says why.
#include "kernels/accelerator.hpp"

#include <Kokkos_Core.hpp>
#include <gtest/gtest.h>

#include <cstdio>

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
    if (lolcats::accelerator_count() == 0) {
        std::printf("[  SKIPPED ] no GPU: %s\n", lolcats::missing_accelerator());
        return 0;
    }
    const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_disable_warnings(true));
    return RUN_ALL_TESTS();
}
