#include "kernels/softmax_attention.hpp"

#include "kernels/attention_head.hpp"
#include "kernels/attention_twin.hpp"
#include "kernels/exponential.hpp"
#include "kernels/scratch.hpp"

namespace lolcats {

namespace {

constexpr int tile_rows = 64;

template <class Real>
struct Tiles {
    Real* packed;  ///< [d, tile]
    Real* weights; ///< [tile, tile]
    Real* sum;     ///< [tile, d], unnormalised output
    Real* maximum; ///< [tile]
    Real* total;   ///< [tile]

    KOKKOS_INLINE_FUNCTION Tiles(Scratch<Real>& scratch, int d)
        : packed(scratch.take(static_cast<std::size_t>(d) * tile_rows)), weights(scratch.take(tile_rows * tile_rows)),
          sum(scratch.take(static_cast<std::size_t>(d) * tile_rows)), maximum(scratch.take(tile_rows)),
          total(scratch.take(tile_rows)) {}
};

/// Replaces row i of scores by exponentials and rescales what earlier key tiles left to the new maximum.
template <class Real>
KOKKOS_INLINE_FUNCTION void online_softmax_row(const Tiles<Real>& t, int i, int visible, int keys, int d) {
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

/// y of the queries first .. first + m.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void query_tile(const Team& team, const Tiles<Real>& t, const AttentionHead<Real>& head,
                                       int first, int m, int d, Real* y, Real* log_sum) {
    const Real scale = Real(1) / Kokkos::sqrt(static_cast<Real>(d));
    const Real* q = head.q + static_cast<std::size_t>(first) * head.q_stride;
    tile::fill(team, m * d, Real(0), t.sum);
    tile::fill(team, m, Real(0), t.total);
    tile::fill(team, m, Real(-1e30), t.maximum);
    for (int key = 0; key < first + m; key += tile_rows) {
        const int keys = key + tile_rows < first + m ? tile_rows : first + m - key;
        const std::size_t offset = static_cast<std::size_t>(key) * head.kv_stride;
        score_tile(team, m, keys, d, scale, q, head.q_stride, head.k + offset, head.kv_stride, t.packed, t.weights,
                   keys);
        tile::for_each(team, m, [=](int i) {
            const int causal = first + i - key + 1;
            online_softmax_row(t, i, causal < keys ? causal : keys, keys, d);
        });
        tile::multiply(team, m, d, keys, Real(1), tile::plain<Real>(t.weights, keys), head.v + offset, head.kv_stride,
                       t.sum, d, true);
    }
    tile::for_each(team, m, [=](int i) {
        const Real inverse = Real(1) / t.total[i];
        Real* out = y + static_cast<std::size_t>(first + i) * head.q_stride;
        for (int j = 0; j < d; ++j) out[j] = t.sum[i * d + j] * inverse;
        log_sum[first + i] = t.maximum[i] + Kokkos::log(t.total[i]);
    });
}

} // namespace

template <class Real>
void softmax_attention(const AttentionShape& shape, const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v,
                       const Matrix<Real>& y, const Matrix<Real>& log_sum) {
    const Kokkos::Profiling::ScopedRegion region("softmax_attention");
    if (twin::softmax_attention(shape, q, k, v, y, log_sum)) return;
    Scratch<Real> size;
    Tiles<Real>(size, shape.head_dim);
    Kokkos::parallel_for(
        "softmax_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const Tiles<Real> tiles(scratch, shape.head_dim);
            const auto head = attention_head(shape, team.league_rank(), q, k, v);
            for (int first = 0; first < shape.length; first += tile_rows) {
                const int m = first + tile_rows < shape.length ? tile_rows : shape.length - first;
                query_tile(team, tiles, head, first, m, shape.head_dim, head_rows(shape, head.index, y),
                           log_sum.data() + static_cast<std::size_t>(head.index) * shape.length);
            }
        });
}

template void softmax_attention<float>(const AttentionShape&, const Matrix<float>&, const Matrix<float>&,
                                       const Matrix<float>&, const Matrix<float>&, const Matrix<float>&);
template void softmax_attention<double>(const AttentionShape&, const Matrix<double>&, const Matrix<double>&,
                                        const Matrix<double>&, const Matrix<double>&, const Matrix<double>&);

} // namespace lolcats
