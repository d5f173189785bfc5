#pragma once
/// The feature map of one head on tiles of rows; feature_maps.hpp has the maps.
#include "kernels/feature_maps.hpp"
#include "kernels/tile.hpp"

namespace lolcats {

/// phi[d'] from z[f] = x W + b, one row.
template <class Real>
KOKKOS_INLINE_FUNCTION void feature_map_activate(FeatureMapKind kind, int f, const Real* z, Real* phi) {
    with_feature_map(kind, [=](auto map) { map.forward(f, z, phi); });
    const int count = features(kind, f);
    // Written so that a NaN is kept: it must reach the loss, where it is reported.
    for (int j = 0; j < count; ++j) phi[j] = phi[j] < feature_floor<Real> ? feature_floor<Real> : phi[j];
}

/// dz[f] from z[f], phi[d'] and dphi[d'], one row.
template <class Real>
KOKKOS_INLINE_FUNCTION void feature_map_gradient(FeatureMapKind kind, int f, const Real* z, const Real* phi,
                                                 const Real* dphi, Real* dz) {
    for (int j = 0; j < f; ++j) dz[j] = 0;
    with_feature_map(kind, [=](auto map) { map.backward(f, z, phi, FeatureGradient<Real>{phi, dphi}, dz); });
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
    LOLCATS_OUTLINED_FUNCTION void forward(const Team& team, int m, const Real* x, int x_row, Real* z,
                                           Real* phi) const {
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
    LOLCATS_OUTLINED_FUNCTION void backward(const Team& team, int m, const Real* z, const Real* phi, const Real* dphi,
                                            Real* dz) const {
        const int f = feature_dim;
        const int width = outputs();
        tile::for_each(team, m, [=, *this](int i) {
            feature_map_gradient(kind, f, z + i * f, phi + i * width, dphi + i * width, dz + i * f);
        });
    }
};

} // namespace lolcats
