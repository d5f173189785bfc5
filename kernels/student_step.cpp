#include "kernels/attention_state.hpp"
#include "kernels/student_head.hpp"

namespace lolcats {

namespace {

/// What one (row, query head) of a step works on. Teams that follow each other have the same head, and so the same map.
template <class Real>
struct StepHead {
    StudentHead<Real> head;
    int row;
    int slot;
    int position; ///< of the row's token
    int kv_head;

    KOKKOS_INLINE_FUNCTION StepHead(const AttentionShape& shape, const Student<Real>& student,
                                    const AttentionInputs<Real>& inputs, const StepRows& rows, int team)
        : head(student_head(shape, student,
                            attention_head(shape, team % shape.batch * shape.heads + team / shape.batch, inputs))),
          row(team % shape.batch), slot(rows.slots(row)), position(rows.positions(row)),
          kv_head(head.rows.head / shape.group()) {}
};

template <class Real>
struct FoldTiles {
    Real* z;   ///< [keys, f]
    Real* phi; ///< [keys, d']

    KOKKOS_INLINE_FUNCTION FoldTiles(Scratch<Real>& scratch, std::size_t keys, std::size_t f, std::size_t p)
        : z(scratch.take(keys * f)), phi(scratch.take(keys * p)) {}
};

/// Keys that the step's token drives out of the near ones go into the sums; where none are near, its own key does.
template <class Real>
void fold_leaving(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
                  const AttentionState<Real>& state, const StepRows& rows) {
    const StudentForm& form = student.form;
    const int places = state.places();
    const int p = features(form.map, form.feature_dim);
    const int most = form.near == NearKeys::terrace ? form.window : 1;
    Scratch<Real> size;
    FoldTiles<Real>(size, most, form.feature_dim, p);
    Kokkos::parallel_for(
        "fold_leaving", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            const StepHead<Real> step(shape, student, inputs, rows, team.league_rank());
            const int first = first_kept(form.near, form.window, step.position);
            const int count = first_kept(form.near, form.window, step.position + 1) - first;
            if (count == 0) return;
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const FoldTiles<Real> t(scratch, most, form.feature_dim, p);
            const bool own = form.near == NearKeys::none;
            const Real* key = own ? step.head.k(0) : &state.keys(step.slot, step.kv_head, first % places, 0);
            const Real* value = own ? step.head.v(0) : &state.values(step.slot, step.kv_head, first % places, 0);
            fold_keys(team, step.head.k_map, count, key, shape.head_dim, value, shape.head_dim, t.z, t.phi,
                      &state.sums(step.slot, step.head.rows.head, 0, 0),
                      &state.feature_sums(step.slot, step.head.rows.head, 0));
        });
}

template <class Real>
struct StepTiles {
    Real* weights; ///< [places], of the near keys
    Real* q_z;     ///< [f]
    Real* q_phi;   ///< [d']
    Real* sum;     ///< [d], numerator

    KOKKOS_INLINE_FUNCTION StepTiles(Scratch<Real>& scratch, std::size_t places, std::size_t d, std::size_t f,
                                     std::size_t p)
        : weights(scratch.take(places)), q_z(scratch.take(f)), q_phi(scratch.take(p)), sum(scratch.take(d)) {}
};

/// Adds the near keys `first` and the count - 1 after them to t.sum, and returns the sum of their weights.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION Real attend_near(const Team& team, const StepHead<Real>& step, const AttentionState<Real>& state,
                                        const StepTiles<Real>& t, int first, int count) {
    const int d = step.head.head_dim;
    const int places = state.places();
    const Real* keys = &state.keys(step.slot, step.kv_head, 0, 0);
    const Real* values = &state.values(step.slot, step.kv_head, 0, 0);
    const Real* q = step.head.q(0);
    const Real scale = step.head.scale;
    const Real gamma = step.head.gamma;
    tile::for_each(team, count,
                   [=](int i) { t.weights[i] = scale * tile::dot(d, q, keys + (first + i) % places * d); });
    const Real top = tile::maximum(count, t.weights);
    team.team_barrier(); // all have read the scores that are overwritten now
    tile::for_each(team, count, [=](int i) { t.weights[i] = gamma * exponential(t.weights[i] - top); });
    const int place = first % places;
    const int unbroken = count < places - place ? count : places - place; // up to the ring's end
    tile::multiply(team, 1, d, unbroken, Real(1), tile::plain<Real>(t.weights, count), values + place * d, d, t.sum, d,
                   true);
    if (unbroken < count)
        tile::multiply(team, 1, d, count - unbroken, Real(1), tile::plain<Real>(t.weights + unbroken, count), values, d,
                       t.sum, d, true);
    return tile::sum(count, t.weights);
}

/// Adds the folded keys to t.sum, and returns the sum of their weights.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION Real attend_far(const Team& team, const StepHead<Real>& step, const AttentionState<Real>& state,
                                       const StepTiles<Real>& t) {
    const StudentHead<Real>& head = step.head;
    const int d = head.head_dim;
    const int p = head.q_map.outputs();
    const int h = head.rows.head;
    head.q_map.forward(team, 1, head.q(0), d, t.q_z, t.q_phi);
    tile::multiply(team, 1, d, p, head.lambda, tile::plain<Real>(t.q_phi, p),
                   static_cast<const Real*>(&state.sums(step.slot, h, 0, 0)), d, t.sum, d, true);
    return head.lambda * tile::dot(p, t.q_phi, static_cast<const Real*>(&state.feature_sums(step.slot, h, 0)));
}

template <class Real>
void attend(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
            const AttentionState<Real>& state, const StepRows& rows, const Matrix<Real>& y) {
    const StudentForm& form = student.form;
    const int p = features(form.map, form.feature_dim);
    Scratch<Real> size;
    StepTiles<Real>(size, state.places(), shape.head_dim, form.feature_dim, p);
    Kokkos::parallel_for(
        "attend", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            const StepHead<Real> step(shape, student, inputs, rows, team.league_rank());
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const StepTiles<Real> t(scratch, state.places(), shape.head_dim, form.feature_dim, p);
            const int first = first_kept(form.near, form.window, step.position + 1);
            const int count = step.position + 1 - first;
            tile::fill(team, shape.head_dim, Real(0), t.sum);
            Real total = step.head.floor();
            if (count > 0) total += attend_near(team, step, state, t, first, count);
            if (first > 0) total += attend_far(team, step, state, t);
            Real* out = head_rows(shape, step.head.rows.index, y);
            tile::for_each(team, shape.head_dim, [=](int i) { out[i] = t.sum[i] / total; });
        });
}

} // namespace

template <class Real>
void step_student_attention(const AttentionShape& shape, const Student<Real>& student,
                            const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                            const StepRows& rows, const Matrix<Real>& y) {
    const Kokkos::Profiling::ScopedRegion region("step_student_attention");
    fold_leaving(shape, student, inputs, state, rows);
    keep_step_keys(shape, inputs, state, rows); // takes the places of those that left
    attend(shape, student, inputs, state, rows, y);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void step_student_attention<Real>(const AttentionShape&, const Student<Real>&,                            \
                                               const AttentionInputs<Real>&, const AttentionState<Real>&,              \
                                               const StepRows&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
