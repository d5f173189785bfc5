/// The comparer is fed wrong answers: a comparer that cannot fail tests nothing.
#include "tests/support/compare.hpp"

#include <limits>

namespace lolcats::test {
namespace {

const std::vector<double> reference = {1, -2, 3, 0, 5};

std::vector<double> with(std::size_t index, double value) {
    auto changed = reference;
    changed[index] = value;
    return changed;
}

TEST(Compare, AcceptsEqualAndNearlyEqualArrays) {
    EXPECT_TRUE(close(reference, reference, 0));
    EXPECT_TRUE(close(with(2, 3 + 1e-9), reference, 1e-8));
}

TEST(Compare, RejectsNaN) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(close(with(3, nan), reference, 1e30));
    EXPECT_FALSE(close(reference, with(3, nan), 1e30));
    EXPECT_FALSE(close(with(3, nan), with(3, nan), 1e30));
    EXPECT_FALSE(close(reference, reference, nan));
    EXPECT_FALSE(close(nan, nan, 1e30));
}

TEST(Compare, RejectsInfinity) {
    const double infinity = std::numeric_limits<double>::infinity();
    EXPECT_FALSE(close(with(0, infinity), with(0, infinity), 1e30));
    EXPECT_FALSE(close(with(0, -infinity), reference, infinity));
}

TEST(Compare, RejectsAShiftedValue) {
    EXPECT_FALSE(close(with(1, -2.001), reference, 1e-4));
    EXPECT_FALSE(close(with(3, 1e-3), reference, 1e-5));
}

TEST(Compare, RejectsASignAndAPermutation) {
    EXPECT_FALSE(close(with(0, -1), reference, 1e-2));
    EXPECT_FALSE(close({-2, 1, 3, 0, 5}, reference, 1e-2));
}

TEST(Compare, RejectsOneBadElementAmongManyGoodOnes) {
    const std::vector<double> expected(1000000, 1.0);
    auto actual = expected;
    actual[777] = 1.001;
    EXPECT_LE(difference(actual, expected).relative_rms, 1e-5);
    EXPECT_EQ(difference(actual, expected).worst_index, 777U);
    EXPECT_FALSE(close(actual, expected, 1e-5));
}

TEST(Compare, RejectsOtherLengthsAndNothingAtAll) {
    EXPECT_FALSE(close({1, -2, 3, 0}, reference, 1));
    EXPECT_FALSE(close({1, -2, 3, 0, 5, 0}, reference, 1));
    EXPECT_FALSE(close(std::vector<double>{}, std::vector<double>{}, 1));
}

TEST(Compare, ErrorsAreAbsoluteWhereZerosAreExpected) {
    EXPECT_TRUE(close({0, 1e-9}, {0, 0}, 1e-8));
    EXPECT_FALSE(close({0, 1e-6}, {0, 0}, 1e-8));
}

} // namespace
} // namespace lolcats::test
