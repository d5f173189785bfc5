#pragma once
/// Numbers between a kernel, which computes in float or double, and the type of an array.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"
#include "lolcats/float8.hpp"

namespace lolcats {

/// A kernel's result in the type of the array that it goes to.
template <class Out, class Real>
KOKKOS_INLINE_FUNCTION Out rounded_to(Real value) {
    if constexpr (std::is_same_v<Out, BFloat16>)
        return to_bfloat16(static_cast<float>(value));
    else
        return static_cast<Out>(value);
}

/// An array's number as float.
KOKKOS_INLINE_FUNCTION float widened(float x) {
    return x;
}
KOKKOS_INLINE_FUNCTION float widened(BFloat16 x) {
    return to_float(x);
}
KOKKOS_INLINE_FUNCTION float widened(Float8 x) {
    return to_float(x);
}

} // namespace lolcats
