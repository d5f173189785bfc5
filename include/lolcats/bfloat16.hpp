#pragma once
/// The 16-bit brain floating-point type: sign, 8 exponent bits, 7 fraction bits.
#include <bit>
#include <cstdint>

namespace lolcats {

struct BFloat16 {
    std::uint16_t bits;
};

constexpr float to_float(BFloat16 x) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

/// Rounds to nearest, ties to even. A NaN stays a (quiet) NaN, values beyond the largest finite one become infinite.
constexpr BFloat16 to_bfloat16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    return {static_cast<std::uint16_t>(is_nan ? (bits >> 16) | 0x40U : rounded >> 16)};
}

} // namespace lolcats
