#pragma once
/// One (sequence, query head) of the student's attention: its constants, near and far ranges, and local weights.
#include "kernels/attention_head.hpp"
#include "kernels/feature_map.hpp"
#include "kernels/floors.hpp"
#include "kernels/scratch.hpp"

namespace lolcats {

template <class Real>
struct StudentHead {
    AttentionHead<Real> rows;
    HeadFeatureMap<Real> q_map;
    HeadFeatureMap<Real> k_map;
    NearKeys near;
    bool affine;
    int window;
    int length;  ///< keys
    int history; ///< keys before the first query's own: in decoding, those of earlier tokens
    int head_dim;
    Real gamma;
    Real lambda;
    Real scale;

    KOKKOS_INLINE_FUNCTION int chunks() const { return (length + window - 1) / window; }
    /// Whether a key of the query's own or the previous chunk can be far (sliding, none): such keys bypass the state.
    KOKKOS_INLINE_FUNCTION bool has_local_far() const { return near != NearKeys::terrace; }
    KOKKOS_INLINE_FUNCTION Real floor() const { return near == NearKeys::none ? normalizer_floor<Real> : Real(0); }
    KOKKOS_INLINE_FUNCTION const Real* q(int n) const {
        return rows.q + static_cast<std::size_t>(n - history) * rows.q_stride;
    }
    KOKKOS_INLINE_FUNCTION const Real* k(int n) const { return rows.k + static_cast<std::size_t>(n) * rows.kv_stride; }
    KOKKOS_INLINE_FUNCTION const Real* v(int n) const { return rows.v + static_cast<std::size_t>(n) * rows.kv_stride; }
    /// First key that query n sees as near, given that it looks no further back than `begin`.
    KOKKOS_INLINE_FUNCTION int near_begin(int n, int begin) const {
        if (near == NearKeys::none) return n + 1;
        if (near == NearKeys::terrace || n - window + 1 < begin) return begin;
        return n - window + 1;
    }
};

/// A chunk of queries and the local keys: those of the chunk and of the one before it.
struct Chunk {
    int first;     ///< first query
    int count;     ///< queries
    int key_first; ///< first local key
    int keys;      ///< local keys

    template <class Real>
    KOKKOS_INLINE_FUNCTION static Chunk at(const StudentHead<Real>& head, int index) {
        const int begin = index * head.window;
        const int end = begin + head.window < head.length ? begin + head.window : head.length;
        const int first = begin > head.history ? begin : head.history;
        const int key_first = index > 0 ? begin - head.window : 0;
        return {first, end - first, key_first, end - key_first};
    }
};

template <class Real>
KOKKOS_INLINE_FUNCTION StudentHead<Real> student_head(const AttentionShape& shape, const Student<Real>& student,
                                                      const AttentionHead<Real>& rows) {
    const StudentForm& form = student.form;
    const StudentParameters<Real>& parameters = student.parameters;
    const int h = rows.head;
    const Real gamma = Real(1) / (Real(1) + Kokkos::exp(-parameters.window_factors(h)));
    const auto map = [&](const Tensor3<Real>& weights, const Vector<Real>& bias) {
        return HeadFeatureMap<Real>{.kind = form.map,
                                    .head_dim = shape.head_dim,
                                    .feature_dim = form.feature_dim,
                                    .weights = &weights(h, 0, 0),
                                    .bias = has_bias(form.map) ? bias(h) : Real(0)};
    };
    return {.rows = rows,
            .q_map = map(parameters.q_map, parameters.q_bias),
            .k_map = map(parameters.k_map, parameters.k_bias),
            .near = form.near,
            .affine = form.affine,
            .window = form.window < shape.length ? form.window : shape.length,
            .length = shape.length,
            .history = 0,
            .head_dim = shape.head_dim,
            .gamma = gamma,
            .lambda = form.affine && form.near != NearKeys::none ? Real(1) - gamma : Real(1),
            .scale = Real(1) / Kokkos::sqrt(static_cast<Real>(shape.head_dim))};
}

/// Tiles every pass over chunks needs. w: window, d: head dimension, f: feature dimension, p = d': features.
template <class Real>
struct StudentTiles {
    Real* packed;  ///< [max(d, p), 2 w], a transposed operand
    Real* weights; ///< [w, 2 w], unnormalised attention weights of the local keys
    Real* far;     ///< [w, 2 w], phi_q . phi_k of the local keys
    Real* q_z;     ///< [w, f]
    Real* q_phi;   ///< [w, p]
    Real* k_z;     ///< [2 w, f]
    Real* k_phi;   ///< [2 w, p]

    KOKKOS_INLINE_FUNCTION StudentTiles(Scratch<Real>& scratch, std::size_t w, std::size_t d, std::size_t f,
                                        std::size_t p)
        : packed(scratch.take((d > p ? d : p) * 2 * w)), weights(scratch.take(2 * w * w)), far(scratch.take(2 * w * w)),
          q_z(scratch.take(w * f)), q_phi(scratch.take(w * p)), k_z(scratch.take(2 * w * f)),
          k_phi(scratch.take(2 * w * p)) {}
};

/// Adds `count` keys to the state, `sums` [p, d] and `feature_sums` [p]. Scratch: z[count, f] and phi[count, p].
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void fold_keys(const Team& team, const HeadFeatureMap<Real>& map, int count, const Real* k,
                                      int k_row, const Real* v, int v_row, Real* z, Real* phi, Real* sums,
                                      Real* feature_sums) {
    const int p = map.outputs();
    const int d = map.head_dim;
    map.forward(team, count, k, k_row, z, phi);
    tile::multiply(team, p, d, count, Real(1), tile::transposed<Real>(phi, p), v, v_row, sums, d, true);
    tile::add_column_sums(team, count, p, static_cast<const Real*>(phi), p, feature_sums);
}

namespace detail {

/// Row of local scores -> weights: near ones gamma exp(s - c), far ones lambda phi . phi, later keys 0.
template <class Real>
KOKKOS_INLINE_FUNCTION void local_weight_row(const StudentHead<Real>& head, const Chunk& chunk, int i, const Real* far,
                                             Real* row) {
    const int begin = head.near_begin(chunk.first + i, chunk.key_first) - chunk.key_first;
    const int visible = chunk.first + i - chunk.key_first + 1;
    if (begin < visible) {
        const Real top = tile::maximum(visible - begin, row + begin);
        tile::exponentials(visible - begin, Real(1), row + begin, top, row + begin);
        for (int j = begin; j < visible; ++j) row[j] *= head.gamma;
    }
    for (int j = 0; j < begin; ++j) row[j] = head.lambda * far[j];
    for (int j = visible; j < chunk.keys; ++j) row[j] = 0;
}

} // namespace detail

/// Fills t.weights[count, keys]. Where local keys can be far, reads the queries' t.q_phi and leaves the keys' t.k_phi.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void local_weights(const Team& team, const StudentHead<Real>& head, const StudentTiles<Real>& t,
                                          const Chunk& chunk) {
    const int keys = chunk.keys;
    if (head.has_local_far()) {
        const int p = head.k_map.outputs();
        head.k_map.forward(team, keys, head.k(chunk.key_first), head.rows.kv_stride, t.k_z, t.k_phi);
        score_tile(team, chunk.count, keys, p, Real(1), static_cast<const Real*>(t.q_phi), p,
                   static_cast<const Real*>(t.k_phi), p, t.packed, t.far, keys);
    }
    if (head.near != NearKeys::none)
        score_tile(team, chunk.count, keys, head.head_dim, head.scale, head.q(chunk.first), head.rows.q_stride,
                   head.k(chunk.key_first), head.rows.kv_stride, t.packed, t.weights, keys);
    tile::for_each(team, chunk.count,
                   [=](int i) { detail::local_weight_row(head, chunk, i, t.far + i * keys, t.weights + i * keys); });
}

} // namespace lolcats
