#pragma once
/// Sums, maxima and exponentials of a row of numbers.
#include "kernels/exponential.hpp"
#include "kernels/function.hpp"
#include "kernels/simd_host.hpp"

#include <type_traits>

#ifdef _OPENMP // others warn of its pragmas
#define LOLCATS_OMP(text) _Pragma(text)
#else
#define LOLCATS_OMP(text)
#endif

namespace lolcats::tile {

template <class Real>
LOLCATS_FUNCTION inline Real dot(int count, const Real* a, const Real* b) {
    Real sum = 0;
    LOLCATS_OMP("omp simd reduction(+ : sum)")
    for (int i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

template <class Real>
LOLCATS_FUNCTION inline Real sum(int count, const Real* a) {
    Real total = 0;
    LOLCATS_OMP("omp simd reduction(+ : total)")
    for (int i = 0; i < count; ++i) total += a[i];
    return total;
}

#ifndef __CUDACC__
namespace host {

template <class Real>
inline Real maximum(int count, const Real* a) {
    using V = Simd<Real>;
    const auto larger = [](auto x, auto y) { return y > x ? y : x; };
    Real result = a[0];
    int i = 0;
    if (count >= V::width) {
        typename V::Lanes lanes = V::load(a);
        for (i = V::width; i + V::width <= count; i += V::width) lanes = larger(lanes, V::load(a + i));
        result = V::reduce(lanes, larger);
    }
    for (; i < count; ++i) result = larger(result, a[i]);
    return result;
}

inline float exponentials(int count, float sign, const float* in, float shift, float* out) {
    using V = Simd<float>;
    V::Lanes total{};
    int i = 0;
    for (; i + V::width <= count; i += V::width) {
        const V::Lanes lanes = detail::exponential_host<V::Lanes, V::Bits>(sign * V::load(in + i) - shift);
        V::store(lanes, out + i);
        total += lanes;
    }
    float sum = V::reduce(total, [](auto x, auto y) { return x + y; });
    for (; i < count; ++i) {
        out[i] = exponential(sign * in[i] - shift);
        sum += out[i];
    }
    return sum;
}

} // namespace host
#endif

template <class Real>
LOLCATS_FUNCTION inline Real maximum(int count, const Real* a) {
#ifdef __CUDACC__
    Real result = a[0];
    for (int i = 1; i < count; ++i) result = a[i] > result ? a[i] : result;
    return result;
#else
    return host::maximum(count, a);
#endif
}

/// out = exp(sign in - shift), which may be `in`, for exponents of at most 88; returns the sum.
template <class Real>
LOLCATS_FUNCTION inline Real exponentials(int count, Real sign, const Real* in, Real shift, Real* out) {
#ifndef __CUDACC__
    if constexpr (std::is_same_v<Real, float>) return host::exponentials(count, sign, in, shift, out);
#endif
    Real total = 0;
    for (int i = 0; i < count; ++i) {
        out[i] = exponential(sign * in[i] - shift);
        total += out[i];
    }
    return total;
}

} // namespace lolcats::tile
