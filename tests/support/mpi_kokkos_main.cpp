/// main of test programs that use MPI and arrays: gtest inside the lives of both, in a build for GPUs on this rank's
/// GPU. Fails on every rank if a test failed on one. Where there is no GPU nothing is run and one line that ctest takes
/// for a skipped test says why.
#include "kernels/accelerator.hpp"
#include "kernels/views.hpp"
#include "src/comm/communicator.hpp"

#include <gtest/gtest.h>

#include <cstdio>

namespace {

int run_tests() {
    using lolcats::Communicator;
    const Communicator world = Communicator::world();
    std::int64_t gpus = lolcats::accelerator_count();
    world.min(&gpus, 1);
    if (gpus == 0) {
        if (world.rank() == 0) std::printf("[  SKIPPED ] no GPU: %s\n", lolcats::missing_accelerator());
        return 0;
    }
    Kokkos::InitializationSettings settings;
    settings.set_disable_warnings(true).set_num_threads(1);
    if (!lolcats::runs_on_host) settings.set_device_id(world.split_by_node().rank() % static_cast<int>(gpus));
    const Kokkos::ScopeGuard kokkos(settings);
    std::int64_t failed = RUN_ALL_TESTS();
    world.max(&failed, 1);
    return static_cast<int>(failed);
}

} // namespace

int main(int argc, char** argv) {
    lolcats::prepare_accelerator();
    if (MPI_Init(&argc, &argv) != MPI_SUCCESS) {
        std::fputs("MPI_Init failed\n", stderr);
        return 1;
    }
    testing::InitGoogleTest(&argc, argv);
    const int failed = run_tests();
    return MPI_Finalize() == MPI_SUCCESS ? failed : 1;
}
