#include "kernels/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace lolcats::test::test_random {
namespace {

TEST(Random, HashMixesNeighbours) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < 10000; ++i) seen.insert(mix_bits(i) >> 32);
    EXPECT_GT(seen.size(), 9990U);
    EXPECT_EQ(mix_bits(0), 0xe220a8397b1dcdafULL) << "first output of splitmix64 seeded with 0";
}

TEST(Random, TheUnitIntervalIsHalfOpen) {
    EXPECT_EQ(unit_interval(0), 0);
    EXPECT_EQ(unit_interval(~std::uint64_t{0}), std::nextafter(1.0, 0.0));
    EXPECT_EQ(unit_interval(std::uint64_t{1} << 63), 0.5);
}

TEST(Random, UniformNumbersHaveTheirBounds) {
    EXPECT_EQ(uniform(0, 3), -3);
    EXPECT_EQ(uniform(std::uint64_t{1} << 63, 3), 0);
    EXPECT_LT(uniform(~std::uint64_t{0}, 3), 3);
}

/// Of n numbers that are uniform in [-1, 1) the mean is 0 and the mean square 1/3, give or take 5 deviations.
TEST(Random, UniformNumbersHaveTheirMoments) {
    constexpr int n = 100000;
    double sum = 0;
    double squares = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
        const double x = uniform(mix_bits(i), 1);
        sum += x;
        squares += x * x;
    }
    EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(1.0 / 3 / n));
    EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
}

} // namespace
} // namespace lolcats::test::test_random
