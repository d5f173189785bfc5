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
    Real* weights; ///< [rows, keys], of the queries that are computed at once
    Real* sum;     ///< [queries, d], unnormalised output
    Real* maximum; ///< [queries]
    Real* total;   ///< [queries]

    KOKKOS_INLINE_FUNCTION SoftmaxTiles(Scratch<Real>& scratch, std::size_t rows, std::size_t queries, std::size_t d)
        : weights(scratch.take(rows * softmax_tile_keys)), sum(scratch.take(queries * d)),
          maximum(scratch.take(queries)), total(scratch.take(queries)) {}

    /// The same from a query on.
    [[nodiscard]] KOKKOS_INLINE_FUNCTION SoftmaxTiles from(int query, int d) const {
        SoftmaxTiles rest = *this;
        rest.sum += query * d;
        rest.maximum += query;
        rest.total += query;
        return rest;
    }

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

/// Replaces row i of scores by exponentials, of which the query sees `visible` (none where that is not above 0), and
/// rescales what earlier key tiles left where the maximum is a new one.
template <class Real>
KOKKOS_INLINE_FUNCTION void online_softmax_row(const SoftmaxTiles<Real>& t, int i, int visible, int keys, int d) {
    Real* row = t.weights + i * keys;
    for (int j = visible > 0 ? visible : 0; j < keys; ++j) row[j] = 0;
    if (visible <= 0) return;
    const Real top = tile::maximum(visible, row);
    if (top > t.maximum[i]) {
        const Real rescale = exponential(t.maximum[i] - top);
        t.maximum[i] = top;
        t.total[i] *= rescale;
        for (int j = 0; j < d; ++j) t.sum[i * d + j] *= rescale;
    }
    t.total[i] += tile::exponentials(visible, Real(1), row, t.maximum[i], row);
}

} // namespace lolcats
