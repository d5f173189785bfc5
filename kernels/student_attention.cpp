#include "kernels/student_attention.hpp"

#include "kernels/attention_state.hpp"
#include "kernels/attention_twin.hpp"
#include "kernels/row_team.hpp"
#include "kernels/student_head.hpp"

namespace lolcats {

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

/// Adds the keys first .. end - 1, at most two chunks, to the state.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void fold(const Team& team, const StudentHead<Real>& head, const ForwardTiles<Real>& t,
                                 int first, int end) {
    fold_keys(team, head.k_map, end - first, head.k(first), head.rows.kv_stride, head.v(first), head.rows.kv_stride,
              t.k_z, t.k_phi, t.state, t.state_sum);
}

/// Outputs of one chunk. `continued`: the state already holds keys of earlier calls.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void forward_chunk(const Team& team, const StudentHead<Real>& head, const ForwardTiles<Real>& t,
                                          int index, bool continued, Real* y, Real* normalizer) {
    const Chunk chunk = Chunk::at(head, index);
    const int p = head.q_map.outputs();
    const int d = head.head_dim;
    if (index >= 2) fold(team, head, t, (index - 2) * head.window, (index - 1) * head.window);
    const bool has_state = continued || index >= 2;
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
        const int query = chunk.first + i - head.history;
        normalizer[query] = sum;
        Real* out = y + static_cast<std::size_t>(query) * head.rows.q_stride;
        for (int j = 0; j < d; ++j) out[j] = t.numerator[i * d + j] / sum;
    });
}

} // namespace

template <class Real>
void student_attention(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
                       const AttentionOutputs<Real>& outputs) {
    const Kokkos::Profiling::ScopedRegion region("student_attention");
    if (twin::student_attention(shape, student, inputs, outputs)) return;
    const StudentForm& form = student.form;
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, shape.length);
    Scratch<Real> size;
    ForwardTiles<Real>(size, w, shape.head_dim, form.feature_dim, p);
    Kokkos::parallel_for(
        "student_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const ForwardTiles<Real> tiles(scratch, w, shape.head_dim, form.feature_dim, p);
            const auto head = student_head(shape, student, attention_head(shape, team.league_rank(), inputs));
            tile::fill(team, p * shape.head_dim, Real(0), tiles.state);
            tile::fill(team, p, Real(0), tiles.state_sum);
            for (int index = 0; index < head.chunks(); ++index)
                forward_chunk(team, head, tiles, index, false, head_rows(shape, head.rows.index, outputs.y),
                              outputs.statistics.data() + static_cast<std::size_t>(head.rows.index) * shape.length);
        });
}

namespace {

/// run[j] = key and value first + j of a sequence: those before place.position from the ring, then the new rows.
template <class Real>
void line_up(const AttentionShape& shape, const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
             const SequencePlace& place, int first, const KeyRun<Real>& run) {
    const int places = state.places();
    const int d = shape.head_dim;
    const int count = place.position - first + shape.length;
    for_each_row(
        "line_up", static_cast<std::size_t>(shape.kv_heads) * count, KOKKOS_LAMBDA(const RowTeam& team, int i) {
            const int head = i / count;
            const int j = i % count;
            const int row = first + j - place.position;
            const Real* key =
                row < 0 ? &state.keys(place.slot, head, (first + j) % places, 0) : &inputs.k(row, head * d);
            const Real* value =
                row < 0 ? &state.values(place.slot, head, (first + j) % places, 0) : &inputs.v(row, head * d);
            Real* key_out = &run.keys(head, j, 0);
            Real* value_out = &run.values(head, j, 0);
            team.for_each(d, [=](int c) {
                key_out[c] = key[c];
                value_out[c] = value[c];
            });
        });
}

} // namespace

template <class Real>
void continue_student_attention(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                                const SequencePlace& place, const KeyRun<Real>& run,
                                const AttentionOutputs<Real>& outputs) {
    const Kokkos::Profiling::ScopedRegion region("continue_student_attention");
    const StudentForm& form = student.form;
    const int position = place.position;
    const int first = first_kept(form.near, form.window, position);
    const int folded = first_kept(form.near, form.window, position + shape.length) - first; // keys to fold at the end
    const int history = position - first;
    const int keys = history + shape.length;
    line_up(shape, inputs, state, place, first, run);
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, keys);
    Scratch<Real> size;
    ForwardTiles<Real>(size, w, shape.head_dim, form.feature_dim, p);
    Kokkos::parallel_for(
        "continue_student_attention", team_policy(shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            ForwardTiles<Real> tiles(scratch, w, shape.head_dim, form.feature_dim, p);
            const int h = team.league_rank();
            tiles.state = &state.sums(place.slot, h, 0, 0);
            tiles.state_sum = &state.feature_sums(place.slot, h, 0);
            AttentionHead<Real> rows = attention_head(shape, h, inputs);
            rows.k = &run.keys(h / shape.group(), 0, 0);
            rows.v = &run.values(h / shape.group(), 0, 0);
            rows.kv_stride = shape.head_dim;
            auto head = student_head(shape, student, rows);
            head.window = w;
            head.length = keys;
            head.history = history;
            const int last = head.chunks() - 1;
            for (int index = history / w; index <= last; ++index)
                forward_chunk(team, head, tiles, index, first > 0, head_rows(shape, h, outputs.y),
                              &outputs.statistics(h, 0));
            const int begin = last > 0 ? (last - 1) * w : 0;
            if (folded > begin) fold(team, head, tiles, begin, folded);
        });
    keep_keys(shape, inputs, std::max(0, folded - history), state, place);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void student_attention<Real>(const AttentionShape&, const Student<Real>&, const AttentionInputs<Real>&,   \
                                          const AttentionOutputs<Real>&);                                              \
    template void continue_student_attention<Real>(                                                                    \
        const AttentionShape&, const Student<Real>&, const AttentionInputs<Real>&, const AttentionState<Real>&,        \
        const SequencePlace&, const KeyRun<Real>&, const AttentionOutputs<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
