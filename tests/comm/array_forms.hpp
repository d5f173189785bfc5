#pragma once
/// The tests of arrays between ranks are run once by MPI and once by NCCL, where each rank has a GPU of its own.
#include "kernels/views.hpp"
#include "src/comm/array_communicator.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace lolcats {

class ArrayFormTest : public testing::TestWithParam<ArrayTransport::Form> {
protected:
    void SetUp() override {
        if (GetParam() != ArrayTransport::Form::nccl) return;
        const std::string reason = why_not_nccl(world);
        if (world.size() == 1) GTEST_SKIP() << "one rank has nobody to send to";
        if (!reason.empty()) GTEST_SKIP() << "no NCCL: " << reason;
    }

    [[nodiscard]] ArrayTransport transport(double seconds = 60) const {
        return {GetParam(), std::chrono::duration<double>(seconds)};
    }
    [[nodiscard]] std::unique_ptr<ArrayCommunicator> make_group(double seconds = 60) const {
        return make_array_communicator(world, transport(seconds), "ranks of the test");
    }

    Communicator world = Communicator::world();
};

inline std::string form_name(const testing::TestParamInfo<ArrayTransport::Form>& info) {
    return info.param == ArrayTransport::Form::nccl ? "Nccl" : "Mpi";
}

#define LOLCATS_TEST_IN_BOTH_FORMS(Suite)                                                                              \
    INSTANTIATE_TEST_SUITE_P(Forms, Suite, testing::Values(ArrayTransport::Form::mpi, ArrayTransport::Form::nccl),     \
                             form_name)

template <class T>
Vector<T> on_device(const std::vector<T>& values) {
    Vector<T> array(uninitialized("array"), values.size());
    Kokkos::deep_copy(array, Kokkos::View<const T*, Kokkos::HostSpace>(values.data(), values.size()));
    return array;
}

template <class T>
std::vector<T> on_host(const Vector<T>& array) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, array);
    return {host.data(), host.data() + host.size()};
}

} // namespace lolcats
