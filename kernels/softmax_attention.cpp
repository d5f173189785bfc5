#include "kernels/softmax_attention.hpp"

#include "kernels/attention_head.hpp"
#include "kernels/attention_state.hpp"
#include "kernels/attention_twin.hpp"
#include "kernels/softmax_tile.hpp"

namespace lolcats {

namespace {

constexpr int tile_rows = softmax_tile_keys; // queries in a tile

/// y of the queries first .. first + m, before whose sequence stand `history` keys.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void query_tile(const Team& team, const SoftmaxTiles<Real>& t, const AttentionHead<Real>& head,
                                       int history, int first, int m, int d, Real* y, Real* log_sum) {
    const Real scale = Real(1) / Kokkos::sqrt(static_cast<Real>(d));
    const Real* q = head.q + static_cast<std::size_t>(first) * head.q_stride;
    const int end = history + first + m;
    t.begin(team, m, d);
    for (int key = 0; key < end; key += tile_rows) {
        const int keys = key + tile_rows < end ? tile_rows : end - key;
        const std::size_t offset = static_cast<std::size_t>(key) * head.kv_stride;
        score_tile(team, m, keys, d, scale, q, head.q_stride, head.k + offset, head.kv_stride, t.packed, t.weights,
                   keys);
        tile::for_each(team, m, [=](int i) {
            const int causal = history + first + i - key + 1;
            online_softmax_row(t, i, causal < keys ? causal : keys, keys, d);
        });
        tile::multiply(team, m, d, keys, Real(1), tile::plain<Real>(t.weights, keys), head.v + offset, head.kv_stride,
                       t.sum, d, true);
    }
    tile::for_each(team, m, [=](int i) {
        t.finish(i, d, y + static_cast<std::size_t>(first + i) * head.q_stride);
        log_sum[first + i] = t.maximum[i] + Kokkos::log(t.total[i]);
    });
}

/// All queries of a head.
template <class Real>
KOKKOS_INLINE_FUNCTION void all_queries(const Team& team, const SoftmaxTiles<Real>& tiles, const AttentionShape& shape,
                                        const AttentionHead<Real>& head, int history, const Matrix<Real>& y,
                                        const Matrix<Real>& log_sum) {
    for (int first = 0; first < shape.length; first += tile_rows) {
        const int m = first + tile_rows < shape.length ? tile_rows : shape.length - first;
        query_tile(team, tiles, head, history, first, m, shape.head_dim, head_rows(shape, head.index, y),
                   log_sum.data() + static_cast<std::size_t>(head.index) * shape.length);
    }
}

} // namespace

template <class Real>
void softmax_attention(const AttentionShape& shape, const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v,
                       const Matrix<Real>& y, const Matrix<Real>& log_sum) {
    const Kokkos::Profiling::ScopedRegion region("softmax_attention");
    if (twin::softmax_attention(shape, q, k, v, y, log_sum)) return;
    Scratch<Real> size;
    SoftmaxTiles<Real>(size, tile_rows, shape.head_dim);
    Kokkos::parallel_for(
        "softmax_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const SoftmaxTiles<Real> tiles(scratch, tile_rows, shape.head_dim);
            all_queries(team, tiles, shape, attention_head(shape, team.league_rank(), q, k, v), 0, y, log_sum);
        });
}

template <class Real>
void continue_softmax_attention(const AttentionShape& shape, const Matrix<Real>& q, const Matrix<Real>& k,
                                const Matrix<Real>& v, const AttentionState<Real>& state, int slot, int position,
                                const Matrix<Real>& y, const Matrix<Real>& log_sum) {
    const Kokkos::Profiling::ScopedRegion region("continue_softmax_attention");
    keep_keys(shape, k, v, 0, state, slot, position);
    Scratch<Real> size;
    SoftmaxTiles<Real>(size, tile_rows, shape.head_dim);
    Kokkos::parallel_for(
        "continue_softmax_attention", team_policy(shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const SoftmaxTiles<Real> tiles(scratch, tile_rows, shape.head_dim);
            AttentionHead<Real> head = attention_head(shape, team.league_rank(), q, k, v);
            head.k = &state.keys(slot, head.head / shape.group(), 0, 0);
            head.v = &state.values(slot, head.head / shape.group(), 0, 0);
            head.kv_stride = shape.head_dim;
            all_queries(team, tiles, shape, head, position, y, log_sum);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void softmax_attention<Real>(const AttentionShape&, const Matrix<Real>&, const Matrix<Real>&,             \
                                          const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&);              \
    template void continue_softmax_attention<Real>(const AttentionShape&, const Matrix<Real>&, const Matrix<Real>&,    \
                                                   const Matrix<Real>&, const AttentionState<Real>&, int, int,         \
                                                   const Matrix<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
