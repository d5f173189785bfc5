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

} // namespace lolcats
