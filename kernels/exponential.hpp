#pragma once
/// exp for inner loops: branch-free in single precision, so that compilers vectorise it without -ffast-math.
#include "kernels/function.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace lolcats {

namespace detail {

/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by a polynomial of degree 7 (error < 2
/// ulp). NaN stays NaN. Below -87.3 the result is the smallest normal number instead of a subnormal one or zero; x is
/// at most 88. Inlined whatever its size, or no loop around it is vectorised. `Float` is float or a vector of them,
/// `Bits` the integers of its size.
template <class Float, class Bits>
[[gnu::always_inline]] inline Float exponential_host(Float x) {
    const auto constant = [](float value) { return Float{} + value; };
    constexpr float round_shift = 12582912.0F; // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
    x = x < -87.3F ? constant(-87.3F) : x;
    const Float shifted = x * 1.44269504F + round_shift;
    const Float n = shifted - round_shift;
    const Float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    Float p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    Bits bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127U) << 23;
    Float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

} // namespace detail

LOLCATS_FUNCTION inline float exponential(float x) {
#ifdef __CUDA_ARCH__
    return expf(x);
#else
    return detail::exponential_host<float, std::uint32_t>(x > 88.0F ? 88.0F : x);
#endif
}

LOLCATS_FUNCTION inline double exponential(double x) {
    using std::exp;
    return exp(x);
}

} // namespace lolcats
