#include "kernels/attention_head.hpp"
#include "kernels/attention_state.hpp"
#include "kernels/softmax_tile.hpp"

namespace lolcats {

/// A team has a row's key/value head and all query heads that read it: each key is read once.
template <class Real>
void step_softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                            const AttentionState<Real>& state, const StepRows& rows, const Matrix<Real>& y) {
    const Kokkos::Profiling::ScopedRegion region("step_softmax_attention");
    keep_step_keys(shape, inputs, state, rows);
    const int group = shape.group();
    const int d = shape.head_dim;
    const Real scale = Real(1) / Kokkos::sqrt(static_cast<Real>(d));
    Scratch<Real> size;
    SoftmaxTiles<Real>(size, group, group, d);
    Kokkos::parallel_for(
        "step_softmax_attention", team_policy(shape.batch * shape.kv_heads, size.bytes()),
        KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const SoftmaxTiles<Real> t(scratch, group, group, d);
            const int row = team.league_rank() / shape.kv_heads;
            const int head = team.league_rank() % shape.kv_heads;
            const int slot = rows.slots(row);
            const int count = rows.positions(row) + 1;
            const Real* queries = &inputs.q(row, head * group * d);
            t.begin(team, group, d);
            for (int first = 0; first < count; first += softmax_tile_keys) {
                const int keys = first + softmax_tile_keys < count ? softmax_tile_keys : count - first;
                const Real* key = &state.keys(slot, head, first, 0);
                tile::for_each(team, keys, [=](int i) {
                    for (int g = 0; g < group; ++g)
                        t.weights[g * keys + i] = scale * tile::dot(d, queries + g * d, key + i * d);
                });
                tile::for_each(team, group, [=](int g) { online_softmax_row(t, g, keys, keys, d); });
                tile::multiply(team, group, d, keys, Real(1), tile::plain<Real>(t.weights, keys),
                               static_cast<const Real*>(&state.values(slot, head, first, 0)), d, t.sum, d, true);
            }
            Real* out = &y(row, head * group * d);
            tile::for_each(team, group, [=](int g) { t.finish(g, d, out + g * d); });
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void step_softmax_attention<Real>(const AttentionShape&, const AttentionInputs<Real>&,                    \
                                               const AttentionState<Real>&, const StepRows&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
