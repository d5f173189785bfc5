#pragma once
/// A kernel's result in the type of the array that it goes to.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"

namespace lolcats {

template <class Out, class Real>
KOKKOS_INLINE_FUNCTION Out rounded_to(Real value) {
    if constexpr (std::is_same_v<Out, BFloat16>)
        return to_bfloat16(static_cast<float>(value));
    else
        return static_cast<Out>(value);
}

} // namespace lolcats
