#include "io/dtype.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

/// From the definition of IEEE half precision.
double half_value(std::uint16_t bits) {
    const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
    const int exponent = (bits >> 10) & 0x1f;
    const int fraction = bits & 0x3ff;
    if (exponent == 0x1f) return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    if (exponent == 0) return sign * std::ldexp(fraction, -24);
    return sign * std::ldexp(1024 + fraction, exponent - 25);
}

/// From the definition of bfloat16.
double bfloat16_value(std::uint16_t bits) {
    const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
    const int exponent = (bits >> 7) & 0xff;
    const int fraction = bits & 0x7f;
    if (exponent == 0xff) return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    if (exponent == 0) return sign * std::ldexp(fraction, -133);
    return sign * std::ldexp(128 + fraction, exponent - 134);
}

bool same(double a, double b) {
    return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

std::vector<std::uint16_t> all_patterns() {
    std::vector<std::uint16_t> patterns(65536);
    for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
    return patterns;
}

TEST(DType, EveryHalfWidensExactly) {
    const auto patterns = all_patterns();
    std::vector<float> singles(patterns.size());
    std::vector<double> doubles(patterns.size());
    convert_elements(DType::f16, patterns.data(), patterns.size(), singles.data());
    convert_elements(DType::f16, patterns.data(), patterns.size(), doubles.data());
    for (const std::uint16_t bits : patterns) {
        ASSERT_TRUE(same(singles[bits], half_value(bits))) << bits;
        ASSERT_TRUE(same(doubles[bits], half_value(bits))) << bits;
    }
}

TEST(DType, EveryBFloat16WidensExactlyAndComesBack) {
    const auto patterns = all_patterns();
    std::vector<float> singles(patterns.size());
    std::vector<double> doubles(patterns.size());
    std::vector<BFloat16> back(patterns.size()), from_double(patterns.size());
    convert_elements(DType::bf16, patterns.data(), patterns.size(), singles.data());
    convert_elements(DType::bf16, patterns.data(), patterns.size(), doubles.data());
    convert_elements(DType::f32, singles.data(), singles.size(), back.data());
    convert_elements(DType::f64, doubles.data(), doubles.size(), from_double.data());
    for (const std::uint16_t bits : patterns) {
        ASSERT_TRUE(same(singles[bits], bfloat16_value(bits))) << bits;
        ASSERT_TRUE(same(doubles[bits], bfloat16_value(bits))) << bits;
        if (std::isnan(bfloat16_value(bits))) {
            ASSERT_TRUE(std::isnan(to_float(back[bits]))) << bits;
            ASSERT_TRUE(std::isnan(to_float(from_double[bits]))) << bits;
        } else {
            ASSERT_EQ(back[bits].bits, bits);
            ASSERT_EQ(from_double[bits].bits, bits);
        }
    }
}

/// Nearest by search among the two neighbours, ties to the even pattern.
std::uint16_t nearest_bfloat16(double x) {
    std::uint16_t low = 0, high = 0x7f80;
    const double magnitude = std::fabs(x);
    while (high - low > 1) {
        const auto middle = static_cast<std::uint16_t>((low + high) / 2);
        (bfloat16_value(middle) <= magnitude ? low : high) = middle;
    }
    const double above = high == 0x7f80 ? std::ldexp(1.0, 128) : bfloat16_value(high);
    const double down = magnitude - bfloat16_value(low), up = above - magnitude;
    const bool take_high = up < down || (up == down && (high & 1U) == 0);
    return static_cast<std::uint16_t>((take_high ? high : low) | (std::signbit(x) ? 0x8000U : 0U));
}

TEST(DType, RoundingToBFloat16IsToNearestEven) {
    std::mt19937_64 random(1);
    for (int i = 0; i < 200000; ++i) {
        const auto bits = static_cast<std::uint32_t>(random());
        const float x = std::bit_cast<float>(bits);
        if (!std::isfinite(x)) continue;
        ASSERT_EQ(to_bfloat16(x).bits, nearest_bfloat16(x)) << x;
        // A double just beside a tie must not be rounded twice.
        const double tie = (bfloat16_value(bits & 0x3fff) + bfloat16_value((bits & 0x3fff) + 1)) / 2;
        for (const double y : {tie, std::nextafter(tie, 0.0), std::nextafter(tie, 1e300)}) {
            ASSERT_EQ(double_to_bfloat16(y).bits, nearest_bfloat16(y)) << y;
            ASSERT_EQ(double_to_bfloat16(-y).bits, nearest_bfloat16(-y)) << y;
        }
    }
    EXPECT_EQ(to_bfloat16(65504.0F).bits, 0x4780); // the carry runs into the exponent
    EXPECT_EQ(double_to_bfloat16(1e300).bits, 0x7f80);
}

TEST(DType, UnalignedSourcesAreRead) {
    std::vector<std::byte> bytes(1 + 4 * sizeof(double));
    const double values[] = {1.5, -2.25, 3e-300, 7};
    std::memcpy(bytes.data() + 1, values, sizeof values);
    double out[4];
    convert_elements(DType::f64, bytes.data() + 1, 4, out);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(out[i], values[i]);
}

TEST(DType, NamesAndSizes) {
    for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16,
                              DType::i8, DType::u8, DType::boolean}) {
        EXPECT_EQ(dtype_named(name_of(dtype)), dtype);
    }
    EXPECT_EQ(dtype_named("F8_E4M3"), std::nullopt);
    EXPECT_EQ(size_of(DType::bf16), 2U);
    EXPECT_EQ(size_of(DType::i64), 8U);
    float out = 0;
    const std::int32_t in = 1;
    expect_contains(message_of([&] { convert_elements(DType::i32, &in, 1, &out); }), "I32");
}

TEST(DType, ElementCountRefusesOverflow) {
    EXPECT_EQ(element_count({}, "x"), 1);
    EXPECT_EQ(element_count({3, 0, 5}, "x"), 0);
    expect_contains(message_of([] {
                        element_count({std::int64_t{1} << 40, std::int64_t{1} << 40}, "x");
                    }),
                    "too large");
    expect_contains(message_of([] { element_count({-1}, "x"); }), "negative");
}

TEST(DType, FiniteCheckSeesEveryPosition) {
    for (const float bad :
         {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        for (std::size_t i = 0; i < 67; ++i) {
            std::vector<float> values(67, std::numeric_limits<float>::max());
            ASSERT_TRUE(all_finite(values.data(), values.size()));
            values[i] = bad;
            ASSERT_FALSE(all_finite(values.data(), values.size()));
            std::vector<BFloat16> narrow(67, BFloat16{0x7f7f});
            ASSERT_TRUE(all_finite(narrow.data(), narrow.size()));
            narrow[i] = to_bfloat16(bad);
            ASSERT_FALSE(all_finite(narrow.data(), narrow.size()));
        }
    }
}

} // namespace
} // namespace lolcats::io
