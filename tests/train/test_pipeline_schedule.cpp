#include "src/train/pipeline_schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace lolcats {
namespace {

TEST(PipelineSchedule, RunsEachPassOnceWithBoundedFlight) {
    for (int stages : {1, 2, 4, 14})
        for (int stage = 0; stage < stages; ++stage)
            for (int count : {0, 1, 3, 8}) {
                int forwards = 0, backwards = 0, most = 0;
                const auto forward = [&](int i) {
                    EXPECT_EQ(i, forwards++);
                    most = std::max(most, forwards - backwards);
                };
                const auto backward = [&](int i) {
                    EXPECT_EQ(i, backwards++);
                    EXPECT_LE(backwards, forwards);
                };
                run_one_forward_one_backward(stage, stages, count, forward, backward);
                EXPECT_EQ(forwards, count);
                EXPECT_EQ(backwards, count);
                EXPECT_EQ(most, std::min(stages - stage, count)) << "stage " << stage << " of " << stages;
            }
}

} // namespace
} // namespace lolcats
