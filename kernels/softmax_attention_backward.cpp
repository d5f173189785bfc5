#include "kernels/attention_head.hpp"
#include "kernels/scratch.hpp"
#include "kernels/softmax_attention.hpp"
#include "kernels/softmax_tile.hpp"

namespace lolcats {

namespace {

template <class Real>
struct SoftmaxBackwardTiles {
    Real* packed;     ///< [d, keys]
    Real* weights;    ///< [queries, keys]
    Real* scores;     ///< [queries, keys], gradient of the scores
    Real* output_dot; ///< [queries], dy . y

    KOKKOS_INLINE_FUNCTION SoftmaxBackwardTiles(Scratch<Real>& scratch, std::size_t d)
        : packed(scratch.take(d * softmax_tile_keys)), weights(scratch.take(softmax_tile_keys * softmax_tile_keys)),
          scores(scratch.take(softmax_tile_keys * softmax_tile_keys)), output_dot(scratch.take(softmax_tile_keys)) {}
};

/// One head's rows of the arrays that a backward pass reads and adds to.
template <class Real>
struct SoftmaxHeadGradients {
    const Real* y;
    const Real* dy;
    const Real* log_sum;
    Real* dq;
    Real* dk;
    Real* dv;
};

/// Queries first .. first + m - 1 against keys key .. key + keys - 1.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void backward_tile(const Team& team, const SoftmaxBackwardTiles<Real>& t,
                                          const AttentionHead<Real>& head, const SoftmaxHeadGradients<Real>& out, int d,
                                          int first, int m, int key, int keys) {
    const Real scale = Real(1) / Kokkos::sqrt(static_cast<Real>(d));
    const int stride = head.q_stride;
    const std::size_t row = static_cast<std::size_t>(first) * stride;
    const std::size_t column = static_cast<std::size_t>(key) * stride;
    const Real* k = head.k + static_cast<std::size_t>(key) * head.kv_stride;
    const Real* v = head.v + static_cast<std::size_t>(key) * head.kv_stride;
    score_tile(team, m, keys, d, scale, head.q + row, stride, k, head.kv_stride, t.packed, t.weights, keys);
    score_tile(team, m, keys, d, Real(1), out.dy + row, stride, v, head.kv_stride, t.packed, t.scores, keys);
    tile::for_each(team, m, [=](int i) {
        const int causal = first + i - key + 1;
        const int visible = causal < keys ? causal : keys;
        Real* weights = t.weights + i * keys;
        Real* scores = t.scores + i * keys;
        tile::exponentials(visible, Real(1), weights, out.log_sum[first + i], weights);
        for (int j = 0; j < visible; ++j) scores[j] = scale * weights[j] * (scores[j] - t.output_dot[i]);
        for (int j = visible; j < keys; ++j) weights[j] = scores[j] = 0;
    });
    const Real* scores = t.scores;
    tile::multiply(team, m, d, keys, Real(1), tile::plain(scores, keys), k, head.kv_stride, out.dq + row, stride, true);
    tile::multiply(team, keys, d, m, Real(1), tile::transposed(scores, keys), head.q + row, stride, out.dk + column,
                   stride, true);
    tile::multiply(team, keys, d, m, Real(1), tile::transposed<Real>(t.weights, keys), out.dy + row, stride,
                   out.dv + column, stride, true);
}

template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void backward_head(const Team& team, const SoftmaxBackwardTiles<Real>& t,
                                          const AttentionHead<Real>& head, const SoftmaxHeadGradients<Real>& out, int d,
                                          int length) {
    for (int first = 0; first < length; first += softmax_tile_keys) {
        const int m = first + softmax_tile_keys < length ? softmax_tile_keys : length - first;
        tile::for_each(team, m, [=](int i) {
            const std::size_t row = static_cast<std::size_t>(first + i) * head.q_stride;
            t.output_dot[i] = tile::dot(d, out.dy + row, out.y + row);
        });
        for (int key = 0; key < first + m; key += softmax_tile_keys)
            backward_tile(team, t, head, out, d, first, m, key,
                          key + softmax_tile_keys < length ? softmax_tile_keys : length - key);
    }
}

} // namespace

template <class Real>
void softmax_attention_backward(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                                const AttentionOutputs<Real>& outputs, const Matrix<Real>& dy,
                                const AttentionInputGradients<Real>& input_gradients) {
    const Kokkos::Profiling::ScopedRegion region("softmax_attention_backward");
    Kokkos::deep_copy(Execution(), input_gradients.q, Real(0));
    Kokkos::deep_copy(Execution(), input_gradients.k, Real(0));
    Kokkos::deep_copy(Execution(), input_gradients.v, Real(0));
    Scratch<Real> size;
    SoftmaxBackwardTiles<Real>(size, shape.head_dim);
    Kokkos::parallel_for(
        "softmax_attention_backward", team_policy(shape.batch * shape.heads, size.bytes()),
        KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const SoftmaxBackwardTiles<Real> tiles(scratch, shape.head_dim);
            const int index = team.league_rank();
            const SoftmaxHeadGradients<Real> out{.y = head_rows(shape, index, outputs.y),
                                                 .dy = head_rows(shape, index, dy),
                                                 .log_sum = outputs.statistics.data() +
                                                            static_cast<std::size_t>(index) * shape.length,
                                                 .dq = head_rows(shape, index, input_gradients.q),
                                                 .dk = head_rows(shape, index, input_gradients.k),
                                                 .dv = head_rows(shape, index, input_gradients.v)};
            backward_head(team, tiles, attention_head(shape, index, inputs), out, shape.head_dim, shape.length);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void softmax_attention_backward<Real>(const AttentionShape&, const AttentionInputs<Real>&,                \
                                                   const AttentionOutputs<Real>&, const Matrix<Real>&,                 \
                                                   const AttentionInputGradients<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
