#pragma once
/// What the attention kernels share: one (sequence, query head) pair's rows and its tiles of scores.
#include "kernels/attention_arrays.hpp"
#include "kernels/tile.hpp"

namespace lolcats {

/// Rows of one query head in one sequence; row n of an array with `stride` elements a row is at pointer + n * stride.
template <class Real>
struct AttentionHead {
    int sequence;
    int head;
    int index;     ///< sequence * H + head: the row of per-head arrays
    int q_stride;  ///< elements between rows of q and of every [B T, H d] array
    int kv_stride; ///< elements between rows of k and v
    const Real* q;
    const Real* k;
    const Real* v;
};

/// The pointer to this head's first row in an array of [B T, H d].
template <class Real>
KOKKOS_INLINE_FUNCTION Real* head_rows(const AttentionShape& shape, int index, const Matrix<Real>& array) {
    const int sequence = index / shape.heads;
    const int head = index % shape.heads;
    return array.data() + (static_cast<std::size_t>(sequence) * shape.length * shape.heads + head) * shape.head_dim;
}

template <class Real>
KOKKOS_INLINE_FUNCTION AttentionHead<Real> attention_head(const AttentionShape& shape, int index,
                                                          const AttentionInputs<Real>& inputs) {
    const int sequence = index / shape.heads;
    const int head = index % shape.heads;
    const std::size_t kv_offset =
        (static_cast<std::size_t>(sequence) * shape.length * shape.kv_heads + head / shape.group()) * shape.head_dim;
    return {.sequence = sequence,
            .head = head,
            .index = index,
            .q_stride = shape.heads * shape.head_dim,
            .kv_stride = shape.kv_heads * shape.head_dim,
            .q = head_rows(shape, index, inputs.q),
            .k = inputs.k.data() + kv_offset,
            .v = inputs.v.data() + kv_offset};
}

/// scores[m, keys] = scale * q[m, d] k[keys, d]^T; `packed` holds d * keys elements.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void score_tile(const Team& team, int m, int keys, int d, Real scale, const Real* q, int q_row,
                                       const Real* k, int k_row, Real* packed, Real* scores, int scores_row) {
    tile::transpose(team, keys, d, k, k_row, packed, keys);
    tile::multiply(team, m, keys, d, scale, tile::plain(q, q_row), packed, keys, scores, scores_row, false);
}

} // namespace lolcats
