#pragma once
/// exp for inner loops: branch-free in single precision, so that compilers vectorise it without -ffast-math.
#include "kernels/function.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace lolcats {

namespace detail {

/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by a polynomial of degree 7 (error < 2
/// ulp). NaN stays NaN. Below -87.3 the result is the smallest normal number instead of a subnormal one or zero.
/// Inlined whatever its size, or no loop around it is vectorised.
[[gnu::always_inline]] inline float exponential_host(float x) {
    constexpr float round_shift = 12582912.0F; // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
    x = x > 88.0F ? 88.0F : x;
    x = x < -87.3F ? -87.3F : x;
    const float shifted = x * 1.44269504F + round_shift;
    const float n = shifted - round_shift;
    const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127U) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

} // namespace detail

LOLCATS_FUNCTION inline float exponential(float x) {
#ifdef __CUDA_ARCH__
    return expf(x);
#else
    return detail::exponential_host(x);
#endif
}

LOLCATS_FUNCTION inline double exponential(double x) {
    using std::exp;
    return exp(x);
}

} // namespace lolcats
