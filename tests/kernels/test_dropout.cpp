#include "kernels/dropout.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <cmath>

namespace lolcats::test::test_dropout {
namespace {

constexpr int rows = 300;
constexpr int width = 257;

template <class Real>
std::vector<double> dropped(const std::vector<double>& x, double probability, std::uint64_t stream) {
    const auto out = poisoned<Real>(rows, width);
    dropout(matrix<Real>(rows, width, x), probability, stream, out);
    return values(out);
}

const std::vector<double> ones(rows* width, 1.0);

TEST(Dropout, KeepsTheRightShareAndScalesIt) {
    for (const double probability : {0.1, 0.5, 0.75}) {
        const auto x = random_values(rows * width, 1);
        const auto out = dropped<double>(x, probability, 42);
        double kept = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (out[i] == 0) continue;
            kept += 1;
            ASSERT_TRUE(std::abs(out[i] - x[i] / (1 - probability)) <= 1e-14 * std::abs(out[i]));
        }
        const double n = rows * width;
        const double deviation = std::sqrt(n * probability * (1 - probability));
        EXPECT_NEAR(kept, n * (1 - probability), 5 * deviation) << "probability " << probability;
    }
}

TEST(Dropout, EveryRowAndColumnIsThinned) {
    const auto out = dropped<float>(ones, 0.5, 7);
    for (int i = 0; i < rows; ++i) {
        double kept = 0;
        for (int j = 0; j < width; ++j) kept += out[i * width + j] / 2;
        EXPECT_NEAR(kept, width / 2.0, 6 * std::sqrt(width / 4.0)) << "row " << i;
    }
    for (int j = 0; j < width; ++j) {
        double kept = 0;
        for (int i = 0; i < rows; ++i) kept += out[i * width + j] / 2;
        EXPECT_NEAR(kept, rows / 2.0, 6 * std::sqrt(rows / 4.0)) << "column " << j;
    }
}

TEST(Dropout, IsDeterministicAndTheSameInBothPrecisions) {
    EXPECT_EQ(dropped<float>(ones, 0.5, 3), dropped<float>(ones, 0.5, 3));
    EXPECT_EQ(dropped<float>(ones, 0.5, 3), dropped<double>(ones, 0.5, 3));
}

TEST(Dropout, StreamsAndRowsAreIndependent) {
    const auto a = dropped<float>(ones, 0.5, 3);
    const auto b = dropped<float>(ones, 0.5, 4);
    double agree = 0;
    double rows_agree = 0;
    for (std::size_t i = 0; i < a.size(); ++i) agree += a[i] == b[i] ? 1 : 0;
    for (std::size_t i = width; i < a.size(); ++i) rows_agree += a[i] == a[i - width] ? 1 : 0;
    const double n = rows * width;
    EXPECT_NEAR(agree, n / 2, 5 * std::sqrt(n / 4));
    EXPECT_NEAR(rows_agree, n / 2, 5 * std::sqrt(n / 4));
}

TEST(Dropout, ZeroProbabilityIsTheIdentityAndInPlaceWorks) {
    const auto x = random_values(rows * width, 2);
    EXPECT_EQ(dropped<float>(x, 0, 1), x);
    const auto view = matrix<float>(rows, width, x);
    dropout(view, 0.5, 9, view);
    EXPECT_EQ(values(view), dropped<float>(x, 0.5, 9));
}

TEST(Dropout, MayBeAdded) {
    const auto x = random_values(rows * width, 2);
    const auto start = random_values(rows * width, 3);
    const auto sum = matrix<double>(rows, width, start);
    add_dropout(matrix<double>(rows, width, x), 0.5, 9, sum);
    auto expected = dropped<double>(x, 0.5, 9);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += start[i];
    EXPECT_TRUE(close(values(sum), expected, 1e-15));
}

} // namespace
} // namespace lolcats::test::test_dropout
