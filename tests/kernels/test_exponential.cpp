#include "kernels/exponential.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lolcats {
namespace {

double relative_error(float x) {
    const double exact = std::exp(static_cast<double>(x));
    return std::abs(static_cast<double>(exponential(x)) - exact) / exact;
}

TEST(Exponential, FloatIsAccurateOverItsRange) {
    double worst = 0;
    int count = 0;
    for (float x = -87.2F; x <= 88.0F; x += 0.00137F, ++count) {
        ASSERT_TRUE(relative_error(x) <= 3e-7) << "x = " << x;
        worst = std::max(worst, relative_error(x));
    }
    EXPECT_GT(count, 100000);
    EXPECT_GT(worst, 0);
}

TEST(Exponential, FloatIsAccurateNearZero) {
    for (float x = 1.0F; x > 1e-30F; x *= 0.83F) {
        ASSERT_TRUE(relative_error(x) <= 3e-7) << "x = " << x;
        ASSERT_TRUE(relative_error(-x) <= 3e-7) << "x = " << -x;
    }
}

TEST(Exponential, OfZeroIsExactlyOne) {
    EXPECT_EQ(exponential(0.0F), 1.0F);
    EXPECT_EQ(exponential(-0.0F), 1.0F);
    EXPECT_EQ(exponential(0.0), 1.0);
}

TEST(Exponential, NaNStaysNaN) {
    EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
    EXPECT_TRUE(std::isnan(exponential(-std::numeric_limits<float>::quiet_NaN())));
    EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<double>::quiet_NaN())));
}

TEST(Exponential, VanishesFarBelowTheRange) {
    for (const float x : {-87.31F, -100.0F, -1e30F, -std::numeric_limits<float>::infinity()}) {
        EXPECT_GE(exponential(x), 0.0F) << "x = " << x;
        EXPECT_LE(exponential(x), 1.3e-38F) << "x = " << x;
    }
}

TEST(Exponential, StaysLargeAboveTheRange) {
    for (const float x : {88.5F, 1e30F, std::numeric_limits<float>::infinity()})
        EXPECT_GE(exponential(x), 1.6e38F) << "x = " << x;
}

TEST(Exponential, DoubleIsTheLibrarys) {
    for (const double x : {-700.0, -3.25, 1e-9, 2.5, 700.0}) EXPECT_DOUBLE_EQ(exponential(x), std::exp(x));
}

} // namespace
} // namespace lolcats
