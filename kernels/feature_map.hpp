#pragma once
/// Feature maps of the linear branch: phi(x) = clamp_min(activation(x W + b), 1e-12) (paper section 3.1; Hedgehog,
/// T2R).
///
/// Adding a map: one enumerator and its width in attention_form.hpp, its name in feature_map.cpp, and one case each in
/// `feature_map_activate` and `feature_map_gradient`.
#include "kernels/exponential.hpp"
#include "kernels/tile.hpp"

#include <string>

namespace lolcats {

/// Throws Error for an unknown name.
FeatureMapKind feature_map_kind(const std::string& name);
const char* feature_map_name(FeatureMapKind kind);

template <class Real>
inline constexpr Real feature_floor = Real(1e-12);

namespace detail {

/// out = exp(sign (z - extreme)), the exponent's largest value being 0; returns the sum.
template <class Real>
KOKKOS_INLINE_FUNCTION Real shifted_exponentials(int f, Real sign, const Real* z, Real* out) {
    Real top = sign * z[0];
#pragma omp simd reduction(max : top)
    for (int j = 1; j < f; ++j) top = sign * z[j] > top ? sign * z[j] : top;
    for (int j = 0; j < f; ++j) out[j] = exponential(sign * z[j] - top);
    return tile::sum(f, out);
}

template <class Real>
KOKKOS_INLINE_FUNCTION void softmax_half(int f, Real sign, const Real* z, Real* out) {
    const Real scale = Real(1) / shifted_exponentials(f, sign, z, out);
    for (int j = 0; j < f; ++j) out[j] *= scale;
}

/// The clamp passes no gradient where it bites.
template <class Real>
KOKKOS_INLINE_FUNCTION Real through_clamp(Real phi, Real gradient) {
    return phi > feature_floor<Real> ? gradient : Real(0);
}

/// dz += sign * phi o (dphi - phi . dphi)
template <class Real>
KOKKOS_INLINE_FUNCTION void softmax_half_gradient(int f, Real sign, const Real* phi, const Real* dphi, Real* dz) {
    Real mean = 0;
#pragma omp simd reduction(+ : mean)
    for (int j = 0; j < f; ++j) mean += phi[j] * through_clamp(phi[j], dphi[j]);
    for (int j = 0; j < f; ++j) dz[j] += sign * phi[j] * (through_clamp(phi[j], dphi[j]) - mean);
}

/// dz += sign * phi o dphi, less the whole sum at the extreme of z that the exponent was shifted by (ties share it).
template <class Real>
KOKKOS_INLINE_FUNCTION void exp_half_gradient(int f, Real sign, const Real* z, const Real* phi, const Real* dphi,
                                              Real* dz) {
    Real extreme = z[0];
    for (int j = 1; j < f; ++j) extreme = sign * z[j] > sign * extreme ? z[j] : extreme;
    Real total = 0;
    int ties = 0;
    for (int j = 0; j < f; ++j) {
        const Real term = phi[j] * through_clamp(phi[j], dphi[j]);
        dz[j] += sign * term;
        total += term;
        ties += z[j] == extreme ? 1 : 0;
    }
    for (int j = 0; j < f; ++j) dz[j] -= z[j] == extreme ? sign * total / static_cast<Real>(ties) : Real(0);
}

} // namespace detail

/// phi[d'] from z[f] = x W + b, one row.
template <class Real>
KOKKOS_INLINE_FUNCTION void feature_map_activate(FeatureMapKind kind, int f, const Real* z, Real* phi) {
    switch (kind) {
    case FeatureMapKind::hedgehog:
        detail::softmax_half(f, Real(-1), z, phi + f);
        [[fallthrough]];
    case FeatureMapKind::hedgehog_half:
        detail::softmax_half(f, Real(1), z, phi);
        break;
    case FeatureMapKind::exp_dim:
        detail::shifted_exponentials(f, Real(-1), z, phi + f);
        [[fallthrough]];
    case FeatureMapKind::exp_dim_half:
        detail::shifted_exponentials(f, Real(1), z, phi);
        break;
    case FeatureMapKind::t2r:
        for (int j = 0; j < f; ++j) phi[j] = z[j] > 0 ? z[j] : Real(0);
        break;
    case FeatureMapKind::pos_elu:
        for (int j = 0; j < f; ++j) phi[j] = z[j] > 0 ? Real(1) + z[j] : exponential(z[j]);
        break;
    }
    const int count = features(kind, f);
    // Written so that a NaN is kept: it must reach the loss, where it is reported.
    for (int j = 0; j < count; ++j) phi[j] = phi[j] < feature_floor<Real> ? feature_floor<Real> : phi[j];
}

/// dz[f] from z[f], phi[d'] and dphi[d'], one row.
template <class Real>
KOKKOS_INLINE_FUNCTION void feature_map_gradient(FeatureMapKind kind, int f, const Real* z, const Real* phi,
                                                 const Real* dphi, Real* dz) {
    for (int j = 0; j < f; ++j) dz[j] = 0;
    switch (kind) {
    case FeatureMapKind::hedgehog:
        detail::softmax_half_gradient(f, Real(-1), phi + f, dphi + f, dz);
        [[fallthrough]];
    case FeatureMapKind::hedgehog_half:
        detail::softmax_half_gradient(f, Real(1), phi, dphi, dz);
        break;
    case FeatureMapKind::exp_dim:
        detail::exp_half_gradient(f, Real(-1), z, phi + f, dphi + f, dz);
        [[fallthrough]];
    case FeatureMapKind::exp_dim_half:
        detail::exp_half_gradient(f, Real(1), z, phi, dphi, dz);
        break;
    case FeatureMapKind::t2r:
        for (int j = 0; j < f; ++j) dz[j] = detail::through_clamp(phi[j], dphi[j]);
        break;
    case FeatureMapKind::pos_elu:
        for (int j = 0; j < f; ++j) dz[j] = detail::through_clamp(phi[j], dphi[j]) * (z[j] > 0 ? Real(1) : phi[j]);
        break;
    }
}

/// One head's map for a tile of rows: weights[d, f] and a bias that is zero where the kind has none.
template <class Real>
struct HeadFeatureMap {
    FeatureMapKind kind;
    int head_dim;
    int feature_dim;
    const Real* weights;
    Real bias;

    KOKKOS_INLINE_FUNCTION int outputs() const { return features(kind, feature_dim); }

    /// z[m, f] = x W + b and phi[m, d'], for x[m, d] with the given row stride.
    template <class Team>
    KOKKOS_INLINE_FUNCTION void forward(const Team& team, int m, const Real* x, int x_row, Real* z, Real* phi) const {
        const int f = feature_dim;
        const int width = outputs();
        tile::multiply(team, m, f, head_dim, Real(1), tile::plain(x, x_row), weights, f, z, f, false);
        tile::for_each(team, m, [=, *this](int i) {
            for (int j = 0; j < f; ++j) z[i * f + j] += bias;
            feature_map_activate(kind, f, z + i * f, phi + i * width);
        });
    }

    /// dz[m, f] from what `forward` left and dphi[m, d'].
    template <class Team>
    KOKKOS_INLINE_FUNCTION void backward(const Team& team, int m, const Real* z, const Real* phi, const Real* dphi,
                                         Real* dz) const {
        const int f = feature_dim;
        const int width = outputs();
        tile::for_each(team, m, [=, *this](int i) {
            feature_map_gradient(kind, f, z + i * f, phi + i * width, dphi + i * width, dz + i * f);
        });
    }
};

} // namespace lolcats
