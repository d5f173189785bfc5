#include "kernels/attention_state.hpp"

#include "kernels/row_team.hpp"

namespace lolcats {

template <class Real>
AttentionState<Real>::AttentionState(const AttentionShape& shape, int slots, int features, int places)
    : sums("state_sums", slots, features > 0 ? shape.heads : 0, features, shape.head_dim),
      feature_sums("state_feature_sums", slots, features > 0 ? shape.heads : 0, features),
      keys("state_keys", slots, shape.kv_heads, places, shape.head_dim),
      values("state_values", slots, shape.kv_heads, places, shape.head_dim) {}

template <class Real>
void AttentionState<Real>::clear(int slot) const {
    if (sums.size() == 0) return;
    for (const auto& array : {sums, keys, values}) {
        const auto part = Kokkos::subview(array, slot, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL);
        Kokkos::deep_copy(Execution(), part, Real(0));
    }
    Kokkos::deep_copy(Execution(), Kokkos::subview(feature_sums, slot, Kokkos::ALL, Kokkos::ALL), Real(0));
}

namespace {

/// One key and value of all key/value heads.
template <class Real>
KOKKOS_INLINE_FUNCTION void keep_row(const RowTeam& team, const AttentionShape& shape, const Real* k, const Real* v,
                                     const AttentionState<Real>& state, int slot, int place) {
    for (int head = 0; head < shape.kv_heads; ++head) {
        Real* key = &state.keys(slot, head, place, 0);
        Real* value = &state.values(slot, head, place, 0);
        const int offset = head * shape.head_dim;
        team.for_each(shape.head_dim, [=](int i) {
            key[i] = k[offset + i];
            value[i] = v[offset + i];
        });
    }
}

} // namespace

template <class Real>
void keep_keys(const AttentionShape& shape, const AttentionInputs<Real>& inputs, int first_row,
               const AttentionState<Real>& state, const SequencePlace& place) {
    const int places = state.places();
    if (places == 0) return;
    for_each_row(
        "keep_keys", shape.length - first_row, KOKKOS_LAMBDA(const RowTeam& team, int i) {
            const int row = first_row + i;
            keep_row(team, shape, &inputs.k(row, 0), &inputs.v(row, 0), state, place.slot,
                     (place.position + row) % places);
        });
}

template <class Real>
void keep_step_keys(const AttentionShape& shape, const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                    const StepRows& rows) {
    const int places = state.places();
    if (places == 0) return;
    for_each_row(
        "keep_step_keys", shape.batch, KOKKOS_LAMBDA(const RowTeam& team, int row) {
            keep_row(team, shape, &inputs.k(row, 0), &inputs.v(row, 0), state, rows.slots(row),
                     rows.positions(row) % places);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template struct AttentionState<Real>;                                                                              \
    template void keep_keys<Real>(const AttentionShape&, const AttentionInputs<Real>&, int,                            \
                                  const AttentionState<Real>&, const SequencePlace&);                                  \
    template void keep_step_keys<Real>(const AttentionShape&, const AttentionInputs<Real>&,                            \
                                       const AttentionState<Real>&, const StepRows&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
