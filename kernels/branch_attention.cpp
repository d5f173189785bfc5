#include "kernels/branch_attention.hpp"

#include "kernels/attention_state.hpp"
#include "kernels/student_head.hpp"
#include "lolcats/error.hpp"

namespace lolcats {

Branch branch_of(const std::string& name) {
    if (name == "both") return Branch::both;
    if (name == "window") return Branch::window;
    if (name == "linear") return Branch::linear;
    if (name == "window+sinks") return Branch::window_and_sinks;
    fail("branch '{}' is not one of both, window, linear, window+sinks", name);
}

int queries_with_far_keys(const StudentForm& form, int length) {
    int count = 0;
    for (int n = 0; n < length; ++n) count += first_kept(form.near, form.window, n + 1) > 0 ? 1 : 0;
    return count;
}

namespace {

template <class Real>
struct BranchTiles {
    Real* weights;   ///< [T], of the keys that softmax sees
    Real* state;     ///< [p, d], sum of phi_k(k_j) v_j^T over the far keys
    Real* state_sum; ///< [p]
    Real* numerator; ///< [d]
    Real* z;         ///< [w, f]
    Real* phi;       ///< [w, p]

    KOKKOS_INLINE_FUNCTION BranchTiles(Scratch<Real>& scratch, std::size_t length, std::size_t w, std::size_t d,
                                       std::size_t f, std::size_t p)
        : weights(scratch.take(length)), state(scratch.take(p * d)), state_sum(scratch.take(p)),
          numerator(scratch.take(d)), z(scratch.take(w * f)), phi(scratch.take(w * p)) {}
};

/// One head, its queries in turn.
template <class Team, class Real>
struct HeadBranches {
    const Team& team;
    const StudentHead<Real>& head;
    const BranchTiles<Real>& t;
    BranchChoice choice;
    int d;
    int p;

    /// t.weights[j] = the score of key j, for the keys begin .. end - 1; returns the largest.
    KOKKOS_INLINE_FUNCTION Real scores(int n, int begin, int end) const {
        tile::for_each(team, end - begin, [=, *this](int j) {
            t.weights[begin + j] = head.scale * tile::dot(d, head.q(n), head.k(begin + j));
        });
        const Real top = tile::maximum(end - begin, t.weights + begin);
        team.team_barrier(); // all have read the scores that are overwritten later
        return top;
    }

    /// Scores of the keys begin .. end - 1 become exp(s - top); returns their sum.
    KOKKOS_INLINE_FUNCTION Real exponentials(int begin, int end, Real top) const {
        tile::for_each(team, end - begin,
                       [=, *this](int j) { t.weights[begin + j] = exponential(t.weights[begin + j] - top); });
        const Real sum = tile::sum(end - begin, t.weights + begin);
        team.team_barrier(); // all have read what the next scores may overwrite
        return sum;
    }

    /// t.numerator += factor sum of t.weights v over the keys begin .. end - 1.
    KOKKOS_INLINE_FUNCTION void add_values(int begin, int end, Real factor) const {
        tile::multiply(team, 1, d, end - begin, factor, tile::plain<Real>(t.weights + begin, end - begin),
                       head.v(begin), head.rows.kv_stride, t.numerator, d, true);
    }

    /// Adds the keys first .. end - 1 to the state, a window's worth at a time.
    KOKKOS_INLINE_FUNCTION void fold(int first, int end) const {
        for (int key = first; key < end; key += head.window) {
            const int count = end - key < head.window ? end - key : head.window;
            fold_keys(team, head.k_map, count, head.k(key), head.rows.kv_stride, head.v(key), head.rows.kv_stride, t.z,
                      t.phi, t.state, t.state_sum);
        }
    }

    /// Share of the keys before `far` in softmax over all.
    KOKKOS_INLINE_FUNCTION Real softmax_share(int n, int far) const {
        const Real all = exponentials(0, n + 1, scores(n, 0, n + 1));
        return tile::sum(far, t.weights) / all;
    }

    /// Softmax of query n over the keys from `near` on and the first ones before them.
    KOKKOS_INLINE_FUNCTION Real window_and_sinks(int n, int near) const {
        const int sinks = choice.sinks < near ? choice.sinks : near;
        const Real top_near = scores(n, near, n + 1);
        const Real top_sinks = sinks > 0 ? scores(n, 0, sinks) : top_near;
        const Real top = top_near > top_sinks ? top_near : top_sinks;
        const Real total = exponentials(near, n + 1, top) + exponentials(0, sinks, top);
        add_values(0, sinks, Real(1));
        add_values(near, n + 1, Real(1));
        return total;
    }

    /// y and far mass of query n, whose keys before `near` are in the state.
    KOKKOS_INLINE_FUNCTION void query(int n, int near, Real* y, Real* far_mass, Real* far_softmax) const {
        const bool has_far = near > 0;
        const Real softmax = has_far ? softmax_share(n, near) : Real(0);
        head.q_map.forward(team, 1, head.q(n), head.rows.q_stride, t.z, t.phi);
        const Real far = has_far ? head.lambda * tile::dot(p, t.phi, t.state_sum) : Real(0);
        tile::fill(team, d, Real(0), t.numerator);
        const Real window = near <= n ? head.gamma * exponentials(near, n + 1, scores(n, near, n + 1)) : Real(0);
        Real total = head.floor();
        if (choice.branch == Branch::window_and_sinks) {
            total = window_and_sinks(n, near);
        } else {
            if (near <= n && (choice.branch != Branch::linear || !has_far)) {
                add_values(near, n + 1, head.gamma);
                total += window;
            }
            if (has_far && choice.branch != Branch::window) {
                tile::multiply(team, 1, d, p, head.lambda, tile::plain<Real>(t.phi, p),
                               static_cast<const Real*>(t.state), d, t.numerator, d, true);
                total += far;
            }
        }
        tile::for_each(team, d, [=, *this](int j) { y[j] = t.numerator[j] / total; });
        Kokkos::single(Kokkos::PerTeam(team), [=] {
            *far_mass = has_far ? far / (far + window) : Real(0);
            *far_softmax = softmax;
        });
        team.team_barrier();
    }
};

} // namespace

template <class Real>
void branch_attention(const AttentionShape& shape, const Student<Real>& student, const BranchChoice& choice,
                      const AttentionInputs<Real>& inputs, const Matrix<Real>& y, const AttentionMass<Real>& mass) {
    const Kokkos::Profiling::ScopedRegion region("branch_attention");
    const StudentForm& form = student.form;
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, shape.length);
    Scratch<Real> size;
    BranchTiles<Real>(size, shape.length, w, shape.head_dim, form.feature_dim, p);
    Kokkos::parallel_for(
        "branch_attention", team_policy(shape.batch * shape.heads, size.bytes()), KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const BranchTiles<Real> tiles(scratch, shape.length, w, shape.head_dim, form.feature_dim, p);
            const int index = team.league_rank();
            const auto head = student_head(shape, student, attention_head(shape, index, inputs));
            const HeadBranches<Team, Real> branches{team, head, tiles, choice, shape.head_dim, p};
            tile::fill(team, p * shape.head_dim, Real(0), tiles.state);
            tile::fill(team, p, Real(0), tiles.state_sum);
            int folded = 0;
            for (int n = 0; n < shape.length; ++n) {
                const int near = first_kept(form.near, form.window, n + 1);
                branches.fold(folded, near);
                folded = near;
                branches.query(n, near, head_rows(shape, index, y) + static_cast<std::size_t>(n) * head.rows.q_stride,
                               &mass.far(index, n), &mass.far_softmax(index, n));
            }
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void branch_attention<Real>(const AttentionShape&, const Student<Real>&, const BranchChoice&,             \
                                         const AttentionInputs<Real>&, const Matrix<Real>&,                            \
                                         const AttentionMass<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
