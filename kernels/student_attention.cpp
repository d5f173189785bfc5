#include "kernels/student_attention.hpp"

#include "kernels/attention_twin.hpp"
#include "kernels/student_head.hpp"
#include "lolcats/error.hpp"

namespace lolcats {

NearKeys near_keys(const std::string& name) {
    if (name == "terrace") return NearKeys::terrace;
    if (name == "sliding") return NearKeys::sliding;
    if (name == "none") return NearKeys::none;
    fail("attention '{}' is not a student's: use terrace, sliding or none", name);
}

template <class Real>
StudentGradients<Real>::StudentGradients(int heads, int weights)
    : q_map("dq_map", heads, weights), k_map("dk_map", heads, weights), q_bias("dq_bias", heads),
      k_bias("dk_bias", heads), window_factors("dwindow_factors", heads) {}

template <class Real>
void StudentGradients<Real>::set_zero() const {
    Kokkos::deep_copy(Execution(), q_map, Real(0));
    Kokkos::deep_copy(Execution(), k_map, Real(0));
    Kokkos::deep_copy(Execution(), q_bias, Real(0));
    Kokkos::deep_copy(Execution(), k_bias, Real(0));
    Kokkos::deep_copy(Execution(), window_factors, Real(0));
}

namespace {

template <class Real>
struct ForwardTiles : StudentTiles<Real> {
    Real* state;     ///< [p, d], sum of phi_k(k_j) v_j^T over the folded chunks
    Real* state_sum; ///< [p], sum of phi_k(k_j)
    Real* numerator; ///< [w, d]

    KOKKOS_INLINE_FUNCTION ForwardTiles(Scratch<Real>& scratch, std::size_t w, std::size_t d, std::size_t f,
                                        std::size_t p)
        : StudentTiles<Real>(scratch, w, d, f, p), state(scratch.take(p * d)), state_sum(scratch.take(p)),
          numerator(scratch.take(w * d)) {}
};

/// Adds a chunk of keys to the state.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void fold(const Team& team, const StudentHead<Real>& head, const ForwardTiles<Real>& t,
                                 const Chunk& chunk) {
    const int p = head.k_map.outputs();
    const int d = head.head_dim;
    head.k_map.forward(team, chunk.count, head.k(chunk.first), head.rows.kv_stride, t.k_z, t.k_phi);
    tile::multiply(team, p, d, chunk.count, Real(1), tile::transposed<Real>(t.k_phi, p), head.v(chunk.first),
                   head.rows.kv_stride, t.state, d, true);
    tile::add_column_sums(team, chunk.count, p, static_cast<const Real*>(t.k_phi), p, t.state_sum);
}

template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void forward_chunk(const Team& team, const StudentHead<Real>& head, const ForwardTiles<Real>& t,
                                          int index, Real* y, Real* normalizer) {
    const Chunk chunk = Chunk::at(head, index);
    const int p = head.q_map.outputs();
    const int d = head.head_dim;
    const bool has_state = index >= 2;
    if (has_state) fold(team, head, t, Chunk::at(head, index - 2));
    if (has_state || head.has_local_far())
        head.q_map.forward(team, chunk.count, head.q(chunk.first), head.rows.q_stride, t.q_z, t.q_phi);
    local_weights(team, head, t, chunk);
    tile::multiply(team, chunk.count, d, chunk.keys, Real(1), tile::plain<Real>(t.weights, chunk.keys),
                   head.v(chunk.key_first), head.rows.kv_stride, t.numerator, d, false);
    if (has_state)
        tile::multiply(team, chunk.count, d, p, head.lambda, tile::plain<Real>(t.q_phi, p),
                       static_cast<const Real*>(t.state), d, t.numerator, d, true);
    tile::for_each(team, chunk.count, [=](int i) {
        Real sum = head.floor() + tile::sum(chunk.keys, t.weights + i * chunk.keys);
        if (has_state) sum += head.lambda * tile::dot(p, t.q_phi + i * p, t.state_sum);
        normalizer[chunk.first + i] = sum;
        Real* out = y + static_cast<std::size_t>(chunk.first + i) * head.rows.q_stride;
        for (int j = 0; j < d; ++j) out[j] = t.numerator[i * d + j] / sum;
    });
}

} // namespace

template <class Real>
void student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameters<Real>& parameters,
                       const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v, const Matrix<Real>& y,
                       const Matrix<Real>& normalizer) {
    const Kokkos::Profiling::ScopedRegion region("student_attention");
    if (twin::student_attention(shape, form, parameters, q, k, v, y, normalizer)) return;
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, shape.length);
    Scratch<Real> size;
    ForwardTiles<Real>(size, w, shape.head_dim, form.feature_dim, p);
    Kokkos::parallel_for(
        "student_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const ForwardTiles<Real> tiles(scratch, w, shape.head_dim, form.feature_dim, p);
            const auto head = student_head(shape, form, parameters, attention_head(shape, team.league_rank(), q, k, v));
            tile::fill(team, p * shape.head_dim, Real(0), tiles.state);
            tile::fill(team, p, Real(0), tiles.state_sum);
            for (int index = 0; index < head.chunks(); ++index)
                forward_chunk(team, head, tiles, index, head_rows(shape, head.rows.index, y),
                              normalizer.data() + static_cast<std::size_t>(head.rows.index) * shape.length);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template struct StudentGradients<Real>;                                                                            \
    template void student_attention<Real>(const AttentionShape&, const StudentForm&, const StudentParameters<Real>&,   \
                                          const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&,               \
                                          const Matrix<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
