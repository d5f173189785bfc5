#pragma once
/// The 8-bit floating-point type E4M3 (OCP 8-bit Floating Point Specification 1.0; Micikevicius et al., arXiv
/// 2209.05433): sign, 4 exponent bits with a bias of 7, 3 fraction bits. It has no infinity; its largest value is 448.
#include <bit>
#include <cstdint>

namespace lolcats {

struct Float8 {
    std::uint8_t bits;
};

inline constexpr float largest_float8 = 448;

namespace float8_detail {
inline constexpr std::uint32_t exponent_shift = 120U << 23; ///< difference of the biases, at the exponent of float
inline constexpr float smallest_step = 0x1p-9F; ///< the distance of numbers below the smallest normal one, 2^-6
} // namespace float8_detail

constexpr float to_float(Float8 x) {
    const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x80U) << 24;
    const std::uint32_t magnitude = x.bits & 0x7fU;
    std::uint32_t bits = (magnitude << 20) + float8_detail::exponent_shift;
    if (magnitude < 8)
        bits = std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * float8_detail::smallest_step);
    if (magnitude == 0x7fU) bits = 0x7fc00000U;
    return std::bit_cast<float>(sign | bits);
}

/// Rounds to nearest, ties to even. Values beyond the largest, infinities included, become the largest; a NaN stays a
/// NaN.
constexpr Float8 to_float8(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = (bits >> 24) & 0x80U;
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    std::uint32_t code = 0;
    if (magnitude > 0x7f800000U) {
        code = 0x7fU;
    } else if (magnitude >= std::bit_cast<std::uint32_t>(largest_float8)) {
        code = 0x7eU;
    } else if (magnitude < std::bit_cast<std::uint32_t>(0x1p-6F)) {
        // Floats at 2^14 are as far apart as this type's numbers are here, so adding 2^14 rounds.
        code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) -
               std::bit_cast<std::uint32_t>(0x1p14F);
    } else {
        code = (magnitude + 0x7ffffU + ((magnitude >> 20) & 1U) - float8_detail::exponent_shift) >> 20;
    }
    return {static_cast<std::uint8_t>(sign | code)};
}

} // namespace lolcats
