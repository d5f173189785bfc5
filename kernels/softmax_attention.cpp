#include "kernels/softmax_attention.hpp"

#include "kernels/attention_head.hpp"
#include "kernels/attention_state.hpp"
#include "kernels/attention_twin.hpp"
#include "kernels/softmax_tile.hpp"

namespace lolcats {

namespace {

constexpr int tile_rows = softmax_tile_keys; // queries in a tile
/// Queries that a tile of keys is packed for: for one tile of queries packing takes up to a fifth of the products'
/// time.
constexpr int group_rows = 4 * tile_rows;

KOKKOS_INLINE_FUNCTION int group_size(const AttentionShape& shape) {
    return shape.length < group_rows ? shape.length : group_rows;
}

/// A group of queries and, for all of them, one tile of keys and values.
template <class Real>
struct QueryGroup {
    SoftmaxTiles<Real> tiles;
    Real* keys;   ///< [d, keys], transposed
    Real* values; ///< [keys, d]

    KOKKOS_INLINE_FUNCTION QueryGroup(Scratch<Real>& scratch, std::size_t queries, std::size_t d)
        : tiles(scratch, tile_rows, queries, d), keys(scratch.take(d * softmax_tile_keys)),
          values(scratch.take(softmax_tile_keys * d)) {}

    /// The head's keys and values key .. key + count - 1.
    template <class Team>
    KOKKOS_INLINE_FUNCTION void pack(const Team& team, const AttentionHead<Real>& head, int key, int count,
                                     int d) const {
        const std::size_t offset = static_cast<std::size_t>(key) * head.kv_stride;
        tile::transpose(team, count, d, head.k + offset, head.kv_stride, keys, count);
        const Real* v = head.v + offset;
        tile::for_each(team, count, [=, *this](int i) {
            for (int j = 0; j < d; ++j) values[i * d + j] = v[static_cast<std::size_t>(i) * head.kv_stride + j];
        });
    }
};

/// Queries q[m], of which the first sees `causal` of the packed keys, the next one more.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void query_tile(const Team& team, const QueryGroup<Real>& group, const SoftmaxTiles<Real>& t,
                                       const Real* q, int q_stride, int m, int causal, int keys, int d) {
    const Real scale = Real(1) / Kokkos::sqrt(static_cast<Real>(d));
    tile::multiply(team, m, keys, d, scale, tile::plain(q, q_stride), static_cast<const Real*>(group.keys), keys,
                   t.weights, keys, false);
    tile::for_each(team, m, [=](int i) { online_softmax_row(t, i, causal + i < keys ? causal + i : keys, keys, d); });
    tile::multiply(team, m, d, keys, Real(1), tile::plain<Real>(t.weights, keys),
                   static_cast<const Real*>(group.values), d, t.sum, d, true);
}

/// y of the queries first .. first + count, before whose sequence stand `history` keys.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void query_group(const Team& team, const QueryGroup<Real>& group,
                                        const AttentionHead<Real>& head, int history, int first, int count, int d,
                                        Real* y, Real* log_sum) {
    group.tiles.begin(team, count, d);
    const int end = history + first + count;
    for (int key = 0; key < end; key += softmax_tile_keys) {
        const int keys = key + softmax_tile_keys < end ? softmax_tile_keys : end - key;
        group.pack(team, head, key, keys, d);
        for (int row = 0; row < count; row += tile_rows) {
            const int m = row + tile_rows < count ? tile_rows : count - row;
            const int causal = history + first + row - key + 1;
            if (causal + m <= 1) continue; // its last query is before the first key
            const Real* q = head.q + static_cast<std::size_t>(first + row) * head.q_stride;
            query_tile(team, group, group.tiles.from(row, d), q, head.q_stride, m, causal, keys, d);
        }
    }
    const SoftmaxTiles<Real> t = group.tiles;
    tile::for_each(team, count, [=](int i) {
        t.finish(i, d, y + static_cast<std::size_t>(first + i) * head.q_stride);
        log_sum[first + i] = t.maximum[i] + Kokkos::log(t.total[i]);
    });
}

/// All queries of a head.
template <class Real>
KOKKOS_INLINE_FUNCTION void all_queries(const Team& team, const QueryGroup<Real>& group, const AttentionShape& shape,
                                        const AttentionHead<Real>& head, int history,
                                        const AttentionOutputs<Real>& outputs) {
    for (int first = 0; first < shape.length; first += group_rows) {
        const int count = first + group_rows < shape.length ? group_rows : shape.length - first;
        query_group(team, group, head, history, first, count, shape.head_dim, head_rows(shape, head.index, outputs.y),
                    outputs.statistics.data() + static_cast<std::size_t>(head.index) * shape.length);
    }
}

} // namespace

template <class Real>
void softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                       const AttentionOutputs<Real>& outputs) {
    const Kokkos::Profiling::ScopedRegion region("softmax_attention");
    if (twin::softmax_attention(shape, inputs, outputs)) return;
    Scratch<Real> size;
    QueryGroup<Real>(size, group_size(shape), shape.head_dim);
    Kokkos::parallel_for(
        "softmax_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const QueryGroup<Real> group(scratch, group_size(shape), shape.head_dim);
            all_queries(team, group, shape, attention_head(shape, team.league_rank(), inputs), 0, outputs);
        });
}

template <class Real>
void continue_softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                                const AttentionState<Real>& state, const SequencePlace& place,
                                const AttentionOutputs<Real>& outputs) {
    const Kokkos::Profiling::ScopedRegion region("continue_softmax_attention");
    keep_keys(shape, inputs, 0, state, place);
    Scratch<Real> size;
    QueryGroup<Real>(size, group_size(shape), shape.head_dim);
    Kokkos::parallel_for(
        "continue_softmax_attention", team_policy(shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const QueryGroup<Real> group(scratch, group_size(shape), shape.head_dim);
            AttentionHead<Real> head = attention_head(shape, team.league_rank(), inputs);
            head.k = &state.keys(place.slot, head.head / shape.group(), 0, 0);
            head.v = &state.values(place.slot, head.head / shape.group(), 0, 0);
            head.kv_stride = shape.head_dim;
            all_queries(team, group, shape, head, place.position, outputs);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void softmax_attention<Real>(const AttentionShape&, const AttentionInputs<Real>&,                         \
                                          const AttentionOutputs<Real>&);                                              \
    template void continue_softmax_attention<Real>(const AttentionShape&, const AttentionInputs<Real>&,                \
                                                   const AttentionState<Real>&, const SequencePlace&,                  \
                                                   const AttentionOutputs<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
