#pragma once
/// The softmax of one row of logits.
#include "kernels/exponential.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

/// p_j = exp(z_j - top) / total
template <class Real>
struct RowSoftmax {
    Real top;     ///< the largest logit
    double total; ///< sum of exp(z_j - top)

    KOKKOS_INLINE_FUNCTION RowSoftmax(const RowTeam& team, int width, const Real* z, Real top) : top(top) {
        total = team.template sum<double>(width, [=](int j) { return static_cast<double>(exponential(z[j] - top)); });
    }
    KOKKOS_INLINE_FUNCTION RowSoftmax(const RowTeam& team, int width, const Real* z)
        : RowSoftmax(team, width, z, z[team.first_largest(width, z)]) {}

    KOKKOS_INLINE_FUNCTION double log_probability(Real z) const {
        return static_cast<double>(z - top) - Kokkos::log(total);
    }
    KOKKOS_INLINE_FUNCTION double probability(Real z) const {
        return static_cast<double>(exponential(z - top)) / total;
    }
};

} // namespace lolcats
