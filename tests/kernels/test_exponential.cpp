#include "kernels/exponential.hpp"

#include "tests/support/arrays.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lolcats::test {
namespace {

/// exponential() of every element, where kernels compute it.
template <class Real>
std::vector<double> exponentials(const std::vector<Real>& x) {
    const auto view = vector<Real>({x.begin(), x.end()});
    Kokkos::parallel_for(
        "test_exponential", Kokkos::RangePolicy<Execution>(0, x.size()),
        KOKKOS_LAMBDA(int i) { view(i) = exponential(view(i)); });
    return values(view);
}

void expect_accurate(const std::vector<float>& x) {
    const auto y = exponentials(x);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double exact = std::exp(static_cast<double>(x[i]));
        const double error = std::abs(y[i] - exact) / exact;
        ASSERT_TRUE(error <= 3e-7) << "x = " << x[i];
        worst = std::max(worst, error);
    }
    EXPECT_GT(worst, 0);
}

TEST(Exponential, FloatIsAccurateOverItsRange) {
    std::vector<float> x;
    for (float at = -87.2F; at <= 88.0F; at += 0.00137F) x.push_back(at);
    EXPECT_GT(x.size(), 100000U);
    expect_accurate(x);
}

TEST(Exponential, FloatIsAccurateNearZero) {
    std::vector<float> x;
    for (float at = 1.0F; at > 1e-30F; at *= 0.83F) {
        x.push_back(at);
        x.push_back(-at);
    }
    expect_accurate(x);
}

TEST(Exponential, OfZeroIsExactlyOne) {
    EXPECT_EQ(exponentials<float>({0.0F, -0.0F}), (std::vector{1.0, 1.0}));
    EXPECT_EQ(exponentials<double>({0.0, -0.0}), (std::vector{1.0, 1.0}));
}

TEST(Exponential, NaNStaysNaN) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (const double y : exponentials<float>({nan, -nan})) EXPECT_TRUE(std::isnan(y));
    for (const double y : exponentials<double>({nan, -nan})) EXPECT_TRUE(std::isnan(y));
}

TEST(Exponential, VanishesFarBelowTheRange) {
    for (const double y : exponentials<float>({-87.31F, -100.0F, -1e30F, -std::numeric_limits<float>::infinity()})) {
        EXPECT_GE(y, 0.0);
        EXPECT_LE(y, 1.3e-38);
    }
}

TEST(Exponential, StaysLargeAboveTheRange) {
    for (const double y : exponentials<float>({88.5F, 1e30F, std::numeric_limits<float>::infinity()}))
        EXPECT_GE(y, 1.6e38);
}

TEST(Exponential, DoubleIsTheLibrarys) {
    const std::vector x{-700.0, -3.25, 1e-9, 2.5, 700.0};
    const auto y = exponentials(x);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_DOUBLE_EQ(y[i], std::exp(x[i]));
}

} // namespace
} // namespace lolcats::test
