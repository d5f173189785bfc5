#pragma once
/// Inverted dropout whose mask is a hash of where an element stands, so that recomputation and any spread over ranks
/// see the same one.
#include "kernels/views.hpp"

#include <cstdint>

namespace lolcats {

/// out[n, D] = x with each element zeroed with the given probability and the others scaled by 1 / (1 - probability).
/// `stream` tells apart the step, sequence, layer and projection. In place if out is x.
template <class Real>
void dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out);

/// out += dropout of x.
template <class Real>
void add_dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out);

/// Well-mixed 64-bit hash (splitmix64's finaliser), for building streams.
KOKKOS_INLINE_FUNCTION std::uint64_t mix_bits(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

} // namespace lolcats
