#include "src/pace.hpp"

#include <gmock/gmock.h>

#include <thread>

namespace lolcats {
namespace {

TEST(Pace, DurationsReadLikeAClock) {
    EXPECT_EQ(duration_text(0.2), "0 s");
    EXPECT_EQ(duration_text(59.4), "59 s");
    EXPECT_EQ(duration_text(59.6), "1 min 00 s");
    EXPECT_EQ(duration_text(200), "3 min 20 s");
    EXPECT_EQ(duration_text(3600 * 5 + 7 * 60 + 59), "5 h 07 min");
}

TEST(Pace, TellsRateAndTimeLeftOfThisRunOnly) {
    Pace pace("hidden states of", "sequences", 1024, 30, 50, false);
    EXPECT_EQ(pace.text(), "hidden states of 30 of 50 sequences");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    pace.advance(10); // in 0.1 s or more: at most 100 sequences a second, and as long again for the last 10
    EXPECT_EQ(pace.done(), 40);
    EXPECT_THAT(pace.text(), testing::MatchesRegex("hidden states of 40 of 50 sequences, [0-9]+ tokens/s, .+ left"));
    const double rate = std::stod(pace.text().substr(pace.text().find(',') + 1));
    EXPECT_LE(rate, 102400);
    EXPECT_GT(rate, 0);
    pace.advance(10);
    EXPECT_TRUE(pace.is_done());
    EXPECT_EQ(pace.left(), "0 s");
}

} // namespace
} // namespace lolcats
