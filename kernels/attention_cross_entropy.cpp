#include "kernels/attention_twin.hpp"
#include "kernels/floors.hpp"
#include "kernels/student_head.hpp"
#include "kernels/sum_in_order.hpp"
#include "kernels/transfer_loss.hpp"

namespace lolcats {

namespace {

template <class Real>
struct CrossEntropyTiles : StudentTiles<Real> {
    Real* teacher;  ///< [w, 2 w], the teacher's weights
    Real* row_loss; ///< [w]
    Real* row_mass; ///< [w], the teacher's mass on weights that the clamp leaves alone
    Real* far_sum;  ///< [w], the student's weights of far keys
    Real* q_dphi;   ///< [w, p]
    Real* dz;       ///< [w, f]
    Real* k_dphi;   ///< [T, p]
    Real* all_phi;  ///< [T, p], of the keys: every chunk of queries reads them again

    KOKKOS_INLINE_FUNCTION CrossEntropyTiles(Scratch<Real>& scratch, std::size_t w, std::size_t d, std::size_t f,
                                             std::size_t p, std::size_t length)
        : StudentTiles<Real>(scratch, w, d, f, p), teacher(scratch.take(2 * w * w)), row_loss(scratch.take(w)),
          row_mass(scratch.take(w)), far_sum(scratch.take(w)), q_dphi(scratch.take(w * p)), dz(scratch.take(w * f)),
          k_dphi(scratch.take(length * p)), all_phi(scratch.take(length * p)) {}
};

/// The keys of one tile: the local ones of a chunk, or one whole chunk farther back.
struct KeyTile {
    int first;
    int count;
    bool local;
};

/// One head's cross-entropy. Query chunks are taken in turn, and each sweeps over its keys: for the sum of the far
/// ones' weights if those alone count, for the loss and the unclamped mass, and for the gradient, which needs that
/// mass.
template <class Team, class Real>
struct HeadCrossEntropy {
    const Team& team;
    const StudentHead<Real>& head;
    const CrossEntropyTiles<Real>& t;
    const Real* log_sum;
    const Real* normalizer; ///< unused among far keys
    EntropyKeys counted;
    int d;
    int f;
    int p;

    KOKKOS_INLINE_FUNCTION HeadCrossEntropy(const Team& team, const StudentHead<Real>& head,
                                            const CrossEntropyTiles<Real>& t, const Real* log_sum,
                                            const Real* normalizer, EntropyKeys counted)
        : team(team), head(head), t(t), log_sum(log_sum), normalizer(normalizer), counted(counted), d(head.head_dim),
          f(head.q_map.feature_dim), p(head.q_map.outputs()) {}

    /// Loss sum over the head's queries. `visit` sees each chunk after its loss and mass are known.
    template <class Visit>
    KOKKOS_INLINE_FUNCTION double run(const Visit& visit) const {
        double loss = 0;
        key_features();
        for (int index = 0; index < head.chunks(); ++index) {
            const Chunk chunk = Chunk::at(head, index);
            head.q_map.forward(team, chunk.count, head.q(chunk.first), head.rows.q_stride, t.q_z, t.q_phi);
            tile::fill(team, chunk.count, Real(0), t.row_loss);
            tile::fill(team, chunk.count, Real(0), t.row_mass);
            if (counted == EntropyKeys::far) {
                tile::fill(team, chunk.count, Real(0), t.far_sum);
                for_each_tile(chunk, [&](const KeyTile& keys) { add_far_sum(chunk, keys); });
            }
            for_each_tile(chunk, [&](const KeyTile& keys) { add_loss(chunk, keys); });
            loss += static_cast<double>(tile::sum(chunk.count, t.row_loss));
            visit(chunk);
        }
        return loss;
    }

    KOKKOS_INLINE_FUNCTION void key_features() const {
        for (int index = 0; index < head.chunks(); ++index) {
            const Chunk chunk = Chunk::at(head, index);
            head.k_map.forward(team, chunk.count, head.k(chunk.first), head.rows.kv_stride, t.k_z,
                               t.all_phi + static_cast<std::size_t>(chunk.first) * p);
        }
    }

    [[nodiscard]] KOKKOS_INLINE_FUNCTION const Real* k_phi(const KeyTile& keys) const {
        return t.all_phi + static_cast<std::size_t>(keys.first) * p;
    }

    template <class Body>
    KOKKOS_INLINE_FUNCTION void for_each_tile(const Chunk& chunk, const Body& body) const {
        for (int first = 0; first < chunk.key_first; first += head.window) body(KeyTile{first, head.window, false});
        if (counted == EntropyKeys::all || head.has_local_far()) body(KeyTile{chunk.key_first, chunk.keys, true});
    }

    /// t.weights[count, keys]: the student's weights.
    KOKKOS_INLINE_FUNCTION void student_weights(const Chunk& chunk, const KeyTile& keys) const {
        if (keys.local) {
            local_weights(team, head, t, chunk);
        } else {
            score_tile(team, chunk.count, keys.count, p, head.lambda, static_cast<const Real*>(t.q_phi), p, k_phi(keys),
                       p, t.packed, t.weights, keys.count);
        }
    }

    /// t.weights: the student's weights, t.teacher: the teacher's, both [count, keys].
    KOKKOS_INLINE_FUNCTION void weights(const Chunk& chunk, const KeyTile& keys) const {
        student_weights(chunk, keys);
        score_tile(team, chunk.count, keys.count, d, head.scale, head.q(chunk.first), head.rows.q_stride,
                   head.k(keys.first), head.rows.kv_stride, t.packed, t.teacher, keys.count);
        tile::for_each(team, chunk.count, [=, *this](int i) {
            const int visible = visible_keys(chunk, keys, i);
            Real* row = t.teacher + i * keys.count;
            tile::exponentials(visible, Real(1), row, log_sum[chunk.first + i], row);
        });
    }

    KOKKOS_INLINE_FUNCTION int visible_keys(const Chunk& chunk, const KeyTile& keys, int i) const {
        const int causal = chunk.first + i - keys.first + 1;
        return causal < keys.count ? causal : keys.count;
    }

    KOKKOS_INLINE_FUNCTION int far_keys(const Chunk& chunk, const KeyTile& keys, int i) const {
        return keys.local ? head.near_begin(chunk.first + i, keys.first) - keys.first : keys.count;
    }

    KOKKOS_INLINE_FUNCTION int counted_keys(const Chunk& chunk, const KeyTile& keys, int i) const {
        return counted == EntropyKeys::all ? visible_keys(chunk, keys, i) : far_keys(chunk, keys, i);
    }

    /// One over the sum that query i's weights are normalised by.
    KOKKOS_INLINE_FUNCTION Real inverse_sum(const Chunk& chunk, int i) const {
        return Real(1) / (counted == EntropyKeys::all ? normalizer[chunk.first + i] : t.far_sum[i]);
    }

    KOKKOS_INLINE_FUNCTION void add_far_sum(const Chunk& chunk, const KeyTile& keys) const {
        student_weights(chunk, keys);
        tile::for_each(team, chunk.count, [=, *this](int i) {
            t.far_sum[i] += tile::sum(far_keys(chunk, keys, i), t.weights + i * keys.count);
        });
    }

    KOKKOS_INLINE_FUNCTION void add_loss(const Chunk& chunk, const KeyTile& keys) const {
        weights(chunk, keys);
        tile::for_each(team, chunk.count, [=, *this](int i) {
            const int count = counted_keys(chunk, keys, i);
            const Real* student = t.weights + i * keys.count;
            const Real* teacher = t.teacher + i * keys.count;
            const Real inverse = inverse_sum(chunk, i);
            for (int j = 0; j < count; ++j) {
                const Real share = student[j] * inverse;
                const bool clamped = share < share_floor<Real>;
                t.row_loss[i] -= teacher[j] * Kokkos::log(clamped ? share_floor<Real> : share);
                t.row_mass[i] += clamped ? Real(0) : teacher[j];
            }
        });
    }

    /// Adds the gradient of one tile of weights to t.q_dphi and to the keys' rows of t.k_dphi.
    KOKKOS_INLINE_FUNCTION void add_gradient(const Chunk& chunk, const KeyTile& keys, Real scale) const {
        weights(chunk, keys);
        tile::for_each(team, chunk.count, [=, *this](int i) {
            const int far = far_keys(chunk, keys, i);
            const Real inverse = inverse_sum(chunk, i);
            const Real common = t.row_mass[i] * inverse;
            Real* row = t.weights + i * keys.count;
            const Real* teacher = t.teacher + i * keys.count;
            for (int j = 0; j < far; ++j) {
                const Real own = row[j] * inverse < share_floor<Real> ? Real(0) : teacher[j] / row[j];
                row[j] = scale * head.lambda * (common - own);
            }
            for (int j = far; j < keys.count; ++j) row[j] = 0;
        });
        if (keys.local && !head.has_local_far()) return;
        const Real* gradient = t.weights;
        tile::multiply(team, chunk.count, p, keys.count, Real(1), tile::plain(gradient, keys.count), k_phi(keys), p,
                       t.q_dphi, p, true);
        tile::multiply(team, keys.count, p, chunk.count, Real(1), tile::transposed(gradient, keys.count),
                       static_cast<const Real*>(t.q_phi), p, t.k_dphi + static_cast<std::size_t>(keys.first) * p, p,
                       true);
    }

    /// From t.q_dphi or a chunk of t.k_dphi to a map's weights and bias.
    KOKKOS_INLINE_FUNCTION void map_gradients(const HeadFeatureMap<Real>& map, int count, const Real* x, int stride,
                                              const Real* z, const Real* phi, const Real* dphi, Real* weights,
                                              Real* bias) const {
        map.backward(team, count, z, phi, dphi, t.dz);
        tile::multiply(team, d, f, count, Real(1), tile::transposed(x, stride), static_cast<const Real*>(t.dz), f,
                       weights, f, true);
        if (!has_bias(map.kind)) return;
        Kokkos::single(Kokkos::PerTeam(team), [=, *this] { *bias += tile::sum(count * f, t.dz); });
        team.team_barrier();
    }
};

/// Gradients of one head, at its row of the arrays of StudentGradients.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION double head_loss_and_gradients(const HeadCrossEntropy<Team, Real>& entropy, Real scale,
                                                      const StudentGradients<Real>& gradients) {
    const auto& [team, head, t, log_sum, normalizer, counted, d, f, p] = entropy;
    const int index = head.rows.index;
    tile::fill(team, head.length * p, Real(0), t.k_dphi);
    const double loss = entropy.run([&](const Chunk& chunk) {
        tile::fill(team, chunk.count * p, Real(0), t.q_dphi);
        entropy.for_each_tile(chunk, [&](const KeyTile& keys) { entropy.add_gradient(chunk, keys, scale); });
        // As in student_attention_backward: the weights' common scale does not matter, which gives the gradient of g.
        // Among far keys it cancels.
        const Real factor = head.affine ? Real(1) : Real(1) - head.gamma;
        if (head.near != NearKeys::none && counted == EntropyKeys::all)
            Kokkos::single(Kokkos::PerTeam(team), [&] {
                gradients.window_factors(index) -= factor * tile::dot(chunk.count * p, t.q_phi, t.q_dphi);
            });
        team.team_barrier();
        entropy.map_gradients(head.q_map, chunk.count, head.q(chunk.first), head.rows.q_stride, t.q_z, t.q_phi,
                              t.q_dphi, &gradients.q_map(index, 0), &gradients.q_bias(index));
    });
    for (int c = 0; c < head.chunks(); ++c) {
        const Chunk chunk = Chunk::at(head, c);
        head.k_map.forward(team, chunk.count, head.k(chunk.first), head.rows.kv_stride, t.k_z, t.k_phi);
        entropy.map_gradients(head.k_map, chunk.count, head.k(chunk.first), head.rows.kv_stride, t.k_z, t.k_phi,
                              t.k_dphi + static_cast<std::size_t>(chunk.first) * p, &gradients.k_map(index, 0),
                              &gradients.k_bias(index));
    }
    return loss;
}

/// Runs `body(entropy)` for every head and returns the sum of what it returns, in a fixed order.
template <class Real, class Body>
double for_each_head(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
                     const AttentionEntropy<Real>& entropy, const Body& body) {
    const StudentForm& form = student.form;
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, shape.length);
    const int heads = shape.batch * shape.heads;
    Scratch<Real> size;
    CrossEntropyTiles<Real>(size, w, shape.head_dim, form.feature_dim, p, shape.length);
    Vector<double> losses(uninitialized("head_losses"), heads);
    Kokkos::parallel_for(
        "attention_cross_entropy", team_policy(heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const CrossEntropyTiles<Real> tiles(scratch, w, shape.head_dim, form.feature_dim, p, shape.length);
            const auto head = student_head(shape, student, attention_head(shape, team.league_rank(), inputs));
            const std::size_t row = static_cast<std::size_t>(team.league_rank()) * shape.length;
            const Real* normalizer = entropy.keys == EntropyKeys::all ? entropy.normalizer.data() + row : nullptr;
            losses(team.league_rank()) = body(HeadCrossEntropy<Team, Real>(
                team, head, tiles, entropy.log_sum.data() + row, normalizer, entropy.keys));
        });
    return sum_in_order(losses);
}

} // namespace

template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const Student<Real>& student,
                               const AttentionInputs<Real>& inputs, const AttentionEntropy<Real>& entropy, Real scale,
                               const StudentGradients<Real>& gradients) {
    const Kokkos::Profiling::ScopedRegion region("attention_cross_entropy");
    double loss = 0;
    if (twin::attention_cross_entropy(shape, student, inputs, entropy, scale, &gradients, loss)) return loss;
    return for_each_head(
        shape, student, inputs, entropy, KOKKOS_LAMBDA(const HeadCrossEntropy<Team, Real>& head) {
            return head_loss_and_gradients(head, scale, gradients);
        });
}

template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const Student<Real>& student,
                               const AttentionInputs<Real>& inputs, const AttentionEntropy<Real>& entropy) {
    const Kokkos::Profiling::ScopedRegion region("attention_cross_entropy");
    double loss = 0;
    if (twin::attention_cross_entropy(shape, student, inputs, entropy, Real(0), nullptr, loss)) return loss;
    return for_each_head(
        shape, student, inputs, entropy,
        KOKKOS_LAMBDA(const HeadCrossEntropy<Team, Real>& head) { return head.run([](const Chunk&) {}); });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template double attention_cross_entropy<Real>(const AttentionShape&, const Student<Real>&,                         \
                                                  const AttentionInputs<Real>&, const AttentionEntropy<Real>&, Real,   \
                                                  const StudentGradients<Real>&);                                      \
    template double attention_cross_entropy<Real>(const AttentionShape&, const Student<Real>&,                         \
                                                  const AttentionInputs<Real>&, const AttentionEntropy<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
