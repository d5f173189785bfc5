#include "src/train/schedule.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

TEST(PlateauSchedule, FallsAfterPatienceAndStopsAtTheFloor) {
    Options options;
    options.plateau_patience = 2;
    options.min_lr = 2e-4;
    PlateauSchedule schedule(options, 1e-2);
    schedule.evaluated(1.0);
    for (int i = 0; i < 2; ++i) schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-2);
    schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-3);
    schedule.evaluated(0.5);
    for (int i = 0; i < 3; ++i) schedule.evaluated(0.5);
    EXPECT_DOUBLE_EQ(schedule.rate(), 2e-4);
    for (int i = 0; i < 10; ++i) schedule.evaluated(0.5);
    EXPECT_DOUBLE_EQ(schedule.rate(), 2e-4);
}

TEST(PlateauSchedule, ConstantStays) {
    Options options;
    options.schedule = "constant";
    options.plateau_patience = 0;
    PlateauSchedule schedule(options, 1e-2);
    for (int i = 0; i < 10; ++i) schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-2);
}

} // namespace
} // namespace lolcats
