#pragma once
/// Softmax over tiles of keys, one after the other, for a tile of queries (online softmax).
#include "kernels/exponential.hpp"
#include "kernels/scratch.hpp"
#include "kernels/tile.hpp"

namespace lolcats {

/// Keys in a tile.
inline constexpr int softmax_tile_keys = 64;

template <class Real>
struct SoftmaxTiles {
    Real* packed;  ///< [d, keys]
    Real* weights; ///< [queries, keys]
    Real* sum;     ///< [queries, d], unnormalised output
    Real* maximum; ///< [queries]
    Real* total;   ///< [queries]

    KOKKOS_INLINE_FUNCTION SoftmaxTiles(Scratch<Real>& scratch, std::size_t queries, std::size_t d)
        : packed(scratch.take(d * softmax_tile_keys)), weights(scratch.take(queries * softmax_tile_keys)),
          sum(scratch.take(queries * d)), maximum(scratch.take(queries)), total(scratch.take(queries)) {}

    template <class Team>
    KOKKOS_INLINE_FUNCTION void begin(const Team& team, int queries, int d) const {
        tile::fill(team, queries * d, Real(0), sum);
        tile::fill(team, queries, Real(0), total);
        tile::fill(team, queries, Real(-1e30), maximum);
    }

    /// y[d] of query i.
    KOKKOS_INLINE_FUNCTION void finish(int i, int d, Real* y) const {
        const Real inverse = Real(1) / total[i];
        for (int j = 0; j < d; ++j) y[j] = sum[i * d + j] * inverse;
    }
};

/// Replaces row i of scores by exponentials and rescales what earlier key tiles left to the new maximum.
template <class Real>
KOKKOS_INLINE_FUNCTION void online_softmax_row(const SoftmaxTiles<Real>& t, int i, int visible, int keys, int d) {
    Real* row = t.weights + i * keys;
    const Real top = tile::maximum(visible, row);
    const Real maximum = top > t.maximum[i] ? top : t.maximum[i];
    const Real rescale = exponential(t.maximum[i] - maximum);
    for (int j = 0; j < visible; ++j) row[j] = exponential(row[j] - maximum);
    for (int j = visible; j < keys; ++j) row[j] = 0;
    t.total[i] = t.total[i] * rescale + tile::sum(visible, row);
    t.maximum[i] = maximum;
    for (int j = 0; j < d; ++j) t.sum[i * d + j] *= rescale;
}

} // namespace lolcats
