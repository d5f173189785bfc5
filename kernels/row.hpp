#pragma once
/// Sums and maxima of a row of numbers.
#include "kernels/function.hpp"

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

template <class Real>
LOLCATS_FUNCTION inline Real maximum(int count, const Real* a) {
    Real result = a[0];
    LOLCATS_OMP("omp simd reduction(max : result)")
    for (int i = 1; i < count; ++i) result = a[i] > result ? a[i] : result;
    return result;
}

} // namespace lolcats::tile
