/// NCCL's calls in a group of one rank, as far as one GPU can show them: how it starts and ends, what order its
/// operations keep with those of the compute stream.
#include "src/comm/nccl_arrays.hpp"
#include "tests/comm/array_forms.hpp"

namespace lolcats {
namespace {

class NcclAloneTest : public testing::Test {
protected:
    void SetUp() override {
        const std::string reason = why_not_nccl(alone);
        if (!reason.empty()) GTEST_SKIP() << "no NCCL: " << reason;
    }

    [[nodiscard]] std::unique_ptr<ArrayCommunicator> make_group() const {
        return make_nccl_arrays(alone, Patience("one rank", std::chrono::minutes(1)), blocks_of_group);
    }

    Communicator world = Communicator::world();
    Communicator alone = world.split(world.rank(), 0);
};

/// array[i] = array[i] / 2 + 1, slowly enough that what does not wait for it sees other numbers.
void work_on(const Vector<float>& array) {
    Kokkos::parallel_for(
        "work", Kokkos::RangePolicy<Execution>(0, array.extent(0)), KOKKOS_LAMBDA(int i) {
            float value = array(i);
            for (int turn = 0; turn < 1000; ++turn) value = value / 2 + 1;
            array(i) = value;
        });
}

TEST_F(NcclAloneTest, OperationsFollowTheWorkBeforeThemAndPrecedeTheWorkAfter) {
    const auto group = make_group();
    EXPECT_STREQ(group->name(), "NCCL");
    const Vector<float> array = on_device(std::vector<float>(1 << 20, 100));
    const Vector<double> wide = on_device(std::vector<double>(1 << 18, 0.1));
    work_on(array);
    const auto sum = group->sum(array.data(), array.size());
    const auto wide_sum = group->sum(wide.data(), wide.size());
    const auto broadcast = group->broadcast(array.data(), array.size() * sizeof(float), 0);
    sum->wait();
    wide_sum->wait();
    broadcast->wait();
    sum->wait(); // does nothing
    work_on(array);
    EXPECT_EQ(on_host(array), std::vector<float>(1 << 20, 2));
    EXPECT_EQ(on_host(wide), std::vector<double>(1 << 18, 0.1));
}

TEST_F(NcclAloneTest, GroupsStartAndEndOneAfterTheOther) {
    for (int turn = 0; turn < 3; ++turn) {
        const auto first = make_group();
        const auto second = make_group();
        const Vector<float> array = on_device(std::vector<float>(5, 3));
        const auto of_second = second->sum(array.data(), array.size());
        of_second->wait();
        first->sum(array.data(), array.size())->wait();
        EXPECT_EQ(on_host(array), std::vector<float>(5, 3));
        EXPECT_EQ(first->control().size(), 1);
    }
}

} // namespace
} // namespace lolcats
