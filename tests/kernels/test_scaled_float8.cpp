/// Numbers in 8 bits against their definition: a list of all values, searched for the nearest.
#include "kernels/scaled_float8.hpp"

#include "lolcats/bfloat16.hpp"
#include "tests/support/arrays.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lolcats::test::test_scaled_float8 {
namespace {

constexpr int nan_code = 0x7f;

/// Of a code without sign: 4 bits of exponent with a bias of 7, 3 of fraction.
double value_of(int code) {
    const int exponent = code >> 3;
    const int fraction = code & 7;
    return exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
}

/// The code of the nearest value; of two that are equally near, the even one.
int nearest_code(double magnitude) {
    int best = 0;
    for (int code = 1; code < nan_code; ++code) {
        const double distance = std::abs(value_of(code) - magnitude);
        const double least = std::abs(value_of(best) - magnitude);
        if (distance < least || (distance == least && code % 2 == 0)) best = code;
    }
    return best;
}

void expect_rounds(float x) {
    const int sign = std::signbit(x) ? 0x80 : 0;
    EXPECT_EQ(to_float8(x).bits, sign | nearest_code(std::abs(static_cast<double>(x)))) << x;
}

TEST(Float8, EveryCodeHasTheValueOfItsBits) {
    for (int code = 0; code < nan_code; ++code) {
        EXPECT_EQ(to_float(Float8{static_cast<std::uint8_t>(code)}), value_of(code)) << code;
        EXPECT_EQ(to_float(Float8{static_cast<std::uint8_t>(code | 0x80)}), -value_of(code)) << code;
        EXPECT_EQ(to_float8(static_cast<float>(value_of(code))).bits, code);
    }
    EXPECT_TRUE(std::signbit(to_float(Float8{0x80})));
    EXPECT_TRUE(std::isnan(to_float(Float8{nan_code})));
    EXPECT_TRUE(std::isnan(to_float(Float8{nan_code | 0x80})));
    EXPECT_EQ(value_of(nan_code - 1), largest_float8);
}

TEST(Float8, RoundsToTheNearestAndTiesToEven) {
    for (int code = 0; code + 1 < nan_code; ++code) {
        const auto middle = static_cast<float>((value_of(code) + value_of(code + 1)) / 2);
        for (const float x : {middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 1e9F)}) {
            expect_rounds(x);
            expect_rounds(-x);
        }
    }
    for (const double x : random_values(2000, 1)) {
        expect_rounds(static_cast<float>(x));
        expect_rounds(static_cast<float>(std::ldexp(x, static_cast<int>(40 * x)))); // down to far below the smallest
    }
}

TEST(Float8, WhatIsTooLargeBecomesTheLargestAndNaNStays) {
    for (const float x : {449.0F, 464.0F, 465.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
        EXPECT_EQ(to_float(to_float8(x)), largest_float8);
        EXPECT_EQ(to_float(to_float8(-x)), -largest_float8);
    }
    EXPECT_TRUE(std::isnan(to_float(to_float8(std::numeric_limits<float>::quiet_NaN()))));
}

std::vector<double> widened(const ScaledFloat8& x) {
    const Matrix<float> out(uninitialized("widened"), x.values.extent(0), x.values.extent(1));
    widen(x, out.data());
    return values(out);
}

ScaledFloat8 rounded(int rows, int columns, const std::vector<double>& x) {
    const ScaledFloat8 out("rounded", rows, columns);
    round_to_float8(matrix<float>(rows, columns, x), out);
    return out;
}

/// Rows of very different sizes, each with a scale of its own.
TEST(ScaledFloat8, KeepsFourDigitsOfEveryRowsLargest) {
    constexpr int rows = 7;
    constexpr int columns = 45;
    auto x = random_values(rows * columns, 2);
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) x[i * columns + j] *= std::pow(10.0, 6 * i - 18);
    const ScaledFloat8 result = rounded(rows, columns, x);
    const auto scales = values(result.scales);
    const auto wide = widened(result);
    for (int i = 0; i < rows; ++i) {
        double largest = 0;
        for (int j = 0; j < columns; ++j) largest = std::max(largest, std::abs(x[i * columns + j]));
        EXPECT_NEAR(scales[i] * 448 / largest, 1, 1e-6);
        for (int j = 0; j < columns; ++j) {
            const double value = x[i * columns + j];
            // Half of the last of four binary digits, or of the step below the smallest normal number.
            const double bound = std::max(std::abs(value) / 16, scales[i] / 1024) * (1 + 1e-5);
            EXPECT_NEAR(wide[i * columns + j], value, bound) << i << " " << j;
        }
    }
}

TEST(ScaledFloat8, RowsOfZerosAndOfTheSmallestNumbersStayFinite) {
    const auto wide = widened(rounded(3, 2, {0, 0, 1e-44, 0, 1e-38, -2e-38}));
    for (std::size_t i = 0; i < wide.size(); ++i) EXPECT_TRUE(std::isfinite(wide[i])) << i;
    EXPECT_EQ(wide[0], 0);
    EXPECT_NEAR(wide[5], -2e-38, 2e-39);
}

TEST(ScaledFloat8, WhatIsNotFiniteIsSeenInItsRowAlone) {
    const double infinity = std::numeric_limits<double>::infinity();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto wide = widened(rounded(4, 3, {1, nan, 2, 1, -infinity, 2, 0, infinity, 0, 1, 2, 3}));
    EXPECT_EQ(wide[0], 1);
    EXPECT_TRUE(std::isnan(wide[1]));
    for (int i = 3; i < 9; ++i) EXPECT_TRUE(std::isnan(wide[i])) << i;
    EXPECT_NEAR(wide[10], 2, 2.0 / 16);
}

TEST(ScaledFloat8, WidensToOtherTypesAndInParts) {
    const ScaledFloat8 x = rounded(5, 6, random_values(30, 3));
    const auto wide = widened(x);
    const Vector<double> doubles("doubles", 30);
    widen(x, doubles.data());
    EXPECT_EQ(values(doubles), wide);
    const Vector<BFloat16> halves("halves", 12);
    widen(x.rows(2, 2), halves.data());
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, halves);
    for (int i = 0; i < 12; ++i)
        EXPECT_EQ(to_float(host(i)), to_float(to_bfloat16(static_cast<float>(wide[12 + i])))) << i;
}

} // namespace
} // namespace lolcats::test::test_scaled_float8
