/// Ranks that do not work in step agree to stop, or that all are done. Collective.
#include "src/comm/stop_agreement.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lolcats {
namespace {

/// "Steps" of this rank, of which each takes longer on higher ranks. Returns whether it was told to stop.
bool work(StopAgreement& agreement, const Communicator& world, int steps, bool asks) {
    for (int step = 0; step < steps; ++step) {
        if (agreement.poll(asks && step >= 3)) return true;
        std::this_thread::sleep_for(std::chrono::microseconds(100 * (world.rank() + 1)));
    }
    return false;
}

TEST(StopAgreement, NobodyAsks) {
    const Communicator world = Communicator::world();
    StopAgreement agreement(world);
    EXPECT_FALSE(work(agreement, world, 10 * (1 + world.rank()), false));
    EXPECT_FALSE(agreement.finish(false));
}

TEST(StopAgreement, OneRankStopsAll) {
    const Communicator world = Communicator::world();
    for (int asking = 0; asking < world.size(); ++asking) {
        StopAgreement agreement(world);
        EXPECT_TRUE(work(agreement, world, 1 << 20, world.rank() == asking)) << asking;
        EXPECT_TRUE(agreement.finish(true));
    }
}

TEST(StopAgreement, RankThatIsDoneHearsOfIt) {
    const Communicator world = Communicator::world();
    StopAgreement agreement(world);
    const bool is_last = world.rank() + 1 == world.size();
    const bool told = is_last && work(agreement, world, 1 << 20, true);
    EXPECT_EQ(told, is_last);
    EXPECT_TRUE(agreement.finish(told));
}

TEST(StopAgreement, WishAtTheEndCounts) {
    const Communicator world = Communicator::world();
    StopAgreement agreement(world);
    EXPECT_TRUE(agreement.finish(world.rank() == 0));
}

} // namespace
} // namespace lolcats
