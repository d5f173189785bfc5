#include "kernels/student_attention.hpp"

#include "kernels/attention_twin.hpp"
#include "kernels/student_head.hpp"

namespace lolcats {

namespace {

/// Tiles of the backward passes, beside those of StudentTiles. D: the normalizer.
template <class Real>
struct BackwardTiles : StudentTiles<Real> {
    Real* state;         ///< [d, p]: first sum of v phi_k^T of far keys, then sum of (dy / D) phi_q^T of their queries
    Real* state_sum;     ///< [p]: sum of phi_k, then of u phi_q
    Real* state_packed;  ///< [p, d]
    Real* output;        ///< [w, d], dy / D
    Real* output_dot;    ///< [w], u = dy . y / D
    Real* near_gradient; ///< [w, 2 w], of the scores
    Real* far_gradient;  ///< [w, 2 w], d(phi_q . phi_k)
    Real* q_dphi;        ///< [w, p]
    Real* k_dphi;        ///< [2 w, p]: keys of the chunk before, then keys of the chunk
    Real* dz;            ///< [w, f]
    Real* row_sum;       ///< [w]
    Real* q_map_packed;  ///< [f, d]
    Real* k_map_packed;  ///< [f, d]

    KOKKOS_INLINE_FUNCTION BackwardTiles(Scratch<Real>& scratch, std::size_t w, std::size_t d, std::size_t f,
                                         std::size_t p)
        : StudentTiles<Real>(scratch, w, d, f, p), state(scratch.take(p * d)), state_sum(scratch.take(p)),
          state_packed(scratch.take(p * d)), output(scratch.take(w * d)), output_dot(scratch.take(w)),
          near_gradient(scratch.take(2 * w * w)), far_gradient(scratch.take(2 * w * w)), q_dphi(scratch.take(w * p)),
          k_dphi(scratch.take(2 * w * p)), dz(scratch.take(w * f)), row_sum(scratch.take(w)),
          q_map_packed(scratch.take(f * d)), k_map_packed(scratch.take(f * d)) {}
};

/// One head's outputs and their gradient, and where it adds the gradients of its inputs and parameters.
template <class Real>
struct HeadGradients {
    const Real* y;
    const Real* dy;
    const Real* normalizer;
    Real* dq; ///< null unless input gradients are wanted; likewise dk and dv
    Real* dk;
    Real* dv;
    Real* q_map; ///< null if the maps are frozen, as are the rest
    Real* k_map;
    Real* q_bias;
    Real* k_bias;
    Real* window_factor;
};

/// The backward passes of one head. `InputGradients` adds those of q, k and v.
template <class Team, class Real, bool InputGradients>
struct HeadBackward {
    const Team& team;
    const StudentHead<Real>& head;
    const BackwardTiles<Real>& t;
    const HeadGradients<Real>& out;
    int d;
    int f;
    int p;

    KOKKOS_INLINE_FUNCTION HeadBackward(const Team& team, const StudentHead<Real>& head, const BackwardTiles<Real>& t,
                                        const HeadGradients<Real>& out)
        : team(team), head(head), t(t), out(out), d(head.head_dim), f(head.q_map.feature_dim), p(head.q_map.outputs()) {
    }

    KOKKOS_INLINE_FUNCTION bool trains_maps() const { return out.q_map != nullptr; }
    KOKKOS_INLINE_FUNCTION std::size_t row(int n) const { return static_cast<std::size_t>(n) * head.rows.q_stride; }

    KOKKOS_INLINE_FUNCTION void run() const {
        if constexpr (InputGradients) {
            tile::transpose(team, d, f, head.q_map.weights, f, t.q_map_packed, d);
            tile::transpose(team, d, f, head.k_map.weights, f, t.k_map_packed, d);
        }
        forward_in_time();
        backward_in_time();
    }

    /// Through the state to the queries: dphi_q = lambda (S dy / D - u z), S and z as the query read them.
    KOKKOS_INLINE_FUNCTION void forward_in_time() const {
        clear_state();
        for (int index = 2; index < head.chunks(); ++index) {
            fold(Chunk::at(head, index - 2));
            const Chunk chunk = Chunk::at(head, index);
            scale_output_gradient(chunk);
            forward_q_map(chunk);
            tile::multiply(team, chunk.count, p, d, head.lambda, tile::plain<Real>(t.output, d),
                           static_cast<const Real*>(t.state), p, t.q_dphi, p, false);
            tile::for_each(team, chunk.count, [=, *this](int i) {
                const Real factor = head.lambda * t.output_dot[i];
                for (int j = 0; j < p; ++j) t.q_dphi[i * p + j] -= factor * t.state_sum[j];
            });
            backward_q_map(chunk);
        }
    }

    /// All other gradients, from the last chunk to the first: for each chunk of keys the state then holds the sums over
    /// the queries that read these keys as far.
    KOKKOS_INLINE_FUNCTION void backward_in_time() const {
        const bool local = InputGradients || head.has_local_far();
        const int chunks = head.chunks();
        clear_state();
        tile::fill(team, 2 * head.window * p, Real(0), t.k_dphi);
        for (int index = chunks - 1; index >= 0; --index) {
            const Chunk chunk = Chunk::at(head, index);
            const bool has_state = index + 2 < chunks;
            if (has_state) gather(Chunk::at(head, index + 2));
            if (head.has_local_far()) shift_key_gradients();
            if (local) local_backward(chunk);
            if (has_state || head.has_local_far()) backward_k_map(chunk, has_state);
        }
    }

    KOKKOS_INLINE_FUNCTION void clear_state() const {
        tile::fill(team, p * d, Real(0), t.state);
        tile::fill(team, p, Real(0), t.state_sum);
    }

    /// state[d, p] += v^T phi_k of a chunk of keys.
    KOKKOS_INLINE_FUNCTION void fold(const Chunk& chunk) const {
        head.k_map.forward(team, chunk.count, head.k(chunk.first), head.rows.kv_stride, t.k_z, t.k_phi);
        tile::multiply(team, d, p, chunk.count, Real(1), tile::transposed(head.v(chunk.first), head.rows.kv_stride),
                       static_cast<const Real*>(t.k_phi), p, t.state, p, true);
        tile::add_column_sums(team, chunk.count, p, static_cast<const Real*>(t.k_phi), p, t.state_sum);
    }

    /// state[d, p] += (dy / D)^T phi_q and state_sum += phi_q^T u of a chunk of queries.
    KOKKOS_INLINE_FUNCTION void gather(const Chunk& chunk) const {
        scale_output_gradient(chunk);
        forward_q_map(chunk);
        tile::multiply(team, d, p, chunk.count, Real(1), tile::transposed<Real>(t.output, d),
                       static_cast<const Real*>(t.q_phi), p, t.state, p, true);
        tile::multiply(team, 1, p, chunk.count, Real(1), tile::plain<Real>(t.output_dot, chunk.count),
                       static_cast<const Real*>(t.q_phi), p, t.state_sum, p, true);
    }

    KOKKOS_INLINE_FUNCTION void scale_output_gradient(const Chunk& chunk) const {
        tile::for_each(team, chunk.count, [=, *this](int i) {
            const int n = chunk.first + i;
            const Real* dy = out.dy + row(n);
            const Real inverse = Real(1) / out.normalizer[n];
            for (int j = 0; j < d; ++j) t.output[i * d + j] = dy[j] * inverse;
            t.output_dot[i] = tile::dot(d, dy, out.y + row(n)) * inverse;
        });
    }

    KOKKOS_INLINE_FUNCTION void forward_q_map(const Chunk& chunk) const {
        head.q_map.forward(team, chunk.count, head.q(chunk.first), head.rows.q_stride, t.q_z, t.q_phi);
    }

    /// From t.q_dphi to the gradients of the map's weights and bias, of g, and of q.
    KOKKOS_INLINE_FUNCTION void backward_q_map(const Chunk& chunk) const {
        if (trains_maps() && head.near != NearKeys::none) window_factor_gradient(chunk.count);
        head.q_map.backward(team, chunk.count, t.q_z, t.q_phi, t.q_dphi, t.dz);
        map_gradients(chunk.count, head.q(chunk.first), head.rows.q_stride, out.q_map, out.q_bias);
        if constexpr (InputGradients) add_input_gradient(chunk, t.q_map_packed, out.dq);
    }

    KOKKOS_INLINE_FUNCTION void window_factor_gradient(int count) const {
        // Scaling near and far weights alike changes nothing, so gamma dl/dgamma = -lambda dl/dlambda, and the latter
        // is phi_q . dphi_q summed over queries: g needs no pass over the near keys.
        tile::for_each(team, count,
                       [=, *this](int i) { t.row_sum[i] = tile::dot(p, t.q_phi + i * p, t.q_dphi + i * p); });
        add_sum(count, head.affine ? Real(-1) : head.gamma - Real(1), out.window_factor);
    }

    /// Adds the state's part to t.k_dphi of a chunk of keys; from there to the gradients of the map's weights and bias,
    /// of k, and of v.
    KOKKOS_INLINE_FUNCTION void backward_k_map(const Chunk& chunk, bool has_state) const {
        Real* dphi = t.k_dphi + head.window * p;
        const int stride = head.rows.kv_stride;
        head.k_map.forward(team, chunk.count, head.k(chunk.first), stride, t.k_z, t.k_phi);
        if (has_state) {
            const bool add = head.has_local_far();
            tile::multiply(team, chunk.count, p, d, head.lambda, tile::plain(head.v(chunk.first), stride),
                           static_cast<const Real*>(t.state), p, dphi, p, add);
            tile::for_each(team, chunk.count, [=, *this](int i) {
                for (int j = 0; j < p; ++j) dphi[i * p + j] -= head.lambda * t.state_sum[j];
            });
        }
        if constexpr (InputGradients) {
            if (has_state) {
                tile::transpose(team, d, p, static_cast<const Real*>(t.state), p, t.state_packed, d);
                tile::multiply(team, chunk.count, d, p, head.lambda, tile::plain<Real>(t.k_phi, p),
                               static_cast<const Real*>(t.state_packed), d, out.dv + row(chunk.first),
                               head.rows.q_stride, true);
            }
        }
        head.k_map.backward(team, chunk.count, t.k_z, t.k_phi, dphi, t.dz);
        map_gradients(chunk.count, head.k(chunk.first), stride, out.k_map, out.k_bias);
        if constexpr (InputGradients) add_input_gradient(chunk, t.k_map_packed, out.dk);
    }

    /// dW += x^T dz, db += sum dz
    KOKKOS_INLINE_FUNCTION void map_gradients(int count, const Real* x, int stride, Real* weights, Real* bias) const {
        if (!trains_maps()) return;
        tile::multiply(team, d, f, count, Real(1), tile::transposed(x, stride), static_cast<const Real*>(t.dz), f,
                       weights, f, true);
        if (!has_bias(head.q_map.kind)) return;
        tile::for_each(team, count, [=, *this](int i) { t.row_sum[i] = tile::sum(f, t.dz + i * f); });
        add_sum(count, Real(1), bias);
    }

    /// x += dz W^T
    KOKKOS_INLINE_FUNCTION void add_input_gradient(const Chunk& chunk, const Real* map_packed, Real* gradient) const {
        tile::multiply(team, chunk.count, d, f, Real(1), tile::plain<Real>(t.dz, f), map_packed, d,
                       gradient + row(chunk.first), head.rows.q_stride, true);
    }

    /// *sum += factor * sum of t.row_sum
    KOKKOS_INLINE_FUNCTION void add_sum(int count, Real factor, Real* sum) const {
        Kokkos::single(Kokkos::PerTeam(team), [=, *this] { *sum += factor * tile::sum(count, t.row_sum); });
        team.team_barrier();
    }

    /// On the way to the chunk before: the part of its keys in t.k_dphi, from the queries of the chunk just done, moves
    /// to the second half, and the first half starts at zero.
    KOKKOS_INLINE_FUNCTION void shift_key_gradients() const {
        const int half = head.window * p;
        tile::for_each(team, half, [=, *this](int i) {
            t.k_dphi[half + i] = t.k_dphi[i];
            t.k_dphi[i] = 0;
        });
    }

    /// Gradients through the weights of the chunk's keys and those of the chunk before.
    KOKKOS_INLINE_FUNCTION void local_backward(const Chunk& chunk) const {
        const int keys = chunk.keys;
        scale_output_gradient(chunk);
        if (head.has_local_far()) forward_q_map(chunk);
        local_weights(team, head, t, chunk);
        score_tile(team, chunk.count, keys, d, Real(1), static_cast<const Real*>(t.output), d, head.v(chunk.key_first),
                   head.rows.kv_stride, t.packed, t.near_gradient, keys);
        tile::for_each(team, chunk.count, [=, *this](int i) { local_gradient_row(chunk, i); });
        if constexpr (InputGradients) local_input_gradients(chunk);
        if (head.has_local_far()) local_far_gradients(chunk);
    }

    /// From near_gradient = dy . v / D to the gradients of near keys' scores in near_gradient and of far keys' phi_q .
    /// phi_k in far_gradient, zeros elsewhere.
    KOKKOS_INLINE_FUNCTION void local_gradient_row(const Chunk& chunk, int i) const {
        const int keys = chunk.keys;
        const int begin = head.near_begin(chunk.first + i, chunk.key_first) - chunk.key_first;
        const int visible = chunk.first + i - chunk.key_first + 1;
        const Real* weights = t.weights + i * keys;
        Real* ds = t.near_gradient + i * keys;
        Real* far = t.far_gradient + i * keys;
        const Real dot = t.output_dot[i];
        if (head.has_local_far())
            for (int j = 0; j < keys; ++j) far[j] = j < begin ? head.lambda * (ds[j] - dot) : Real(0);
        for (int j = 0; j < begin; ++j) ds[j] = 0;
        Real total = 0;
        Real ties = 0;
        LOLCATS_OMP("omp simd reduction(+ : total, ties)")
        for (int j = begin; j < visible; ++j) {
            ds[j] = weights[j] * (ds[j] - dot);
            total += ds[j];
            ties += weights[j] == head.gamma ? Real(1) : Real(0);
        }
        // The maximum is part of the function: lowering it raises every near weight. Its own exponential is exactly 1.
        for (int j = begin; j < visible; ++j) ds[j] -= weights[j] == head.gamma ? total / ties : Real(0);
        for (int j = visible; j < keys; ++j) ds[j] = 0;
    }

    KOKKOS_INLINE_FUNCTION void local_input_gradients(const Chunk& chunk) const {
        const int keys = chunk.keys;
        const int stride = head.rows.q_stride;
        const Real* ds = t.near_gradient;
        tile::multiply(team, keys, d, chunk.count, Real(1), tile::transposed<Real>(t.weights, keys),
                       static_cast<const Real*>(t.output), d, out.dv + row(chunk.key_first), stride, true);
        if (head.near == NearKeys::none) return;
        tile::multiply(team, chunk.count, d, keys, head.scale, tile::plain(ds, keys), head.k(chunk.key_first),
                       head.rows.kv_stride, out.dq + row(chunk.first), stride, true);
        tile::multiply(team, keys, d, chunk.count, head.scale, tile::transposed(ds, keys), head.q(chunk.first), stride,
                       out.dk + row(chunk.key_first), stride, true);
    }

    KOKKOS_INLINE_FUNCTION void local_far_gradients(const Chunk& chunk) const {
        const int keys = chunk.keys;
        const Real* far = t.far_gradient;
        Real* k_dphi = t.k_dphi + (head.window - (chunk.first - chunk.key_first)) * p;
        tile::multiply(team, keys, p, chunk.count, Real(1), tile::transposed(far, keys),
                       static_cast<const Real*>(t.q_phi), p, k_dphi, p, true);
        tile::multiply(team, chunk.count, p, keys, Real(1), tile::plain(far, keys), static_cast<const Real*>(t.k_phi),
                       p, t.q_dphi, p, false);
        backward_q_map(chunk);
    }
};

template <bool InputGradients, class Real>
void launch_backward(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
                     const AttentionOutputs<Real>& outputs, const Matrix<Real>& dy,
                     const StudentGradients<Real>& gradients, const AttentionInputGradients<Real>& input_gradients) {
    const StudentForm& form = student.form;
    const int p = features(form.map, form.feature_dim);
    const int w = std::min(form.window, shape.length);
    Scratch<Real> size;
    BackwardTiles<Real>(size, w, shape.head_dim, form.feature_dim, p);
    const bool maps = gradients.exist();
    Kokkos::parallel_for(
        "student_attention_backward", team_policy(shape.batch * shape.heads, size.bytes()),
        KOKKOS_LAMBDA(const Team& team) {
            Scratch<Real> scratch(team.team_scratch(1).get_shmem(size.bytes()));
            const BackwardTiles<Real> tiles(scratch, w, shape.head_dim, form.feature_dim, p);
            const int index = team.league_rank();
            const auto head = student_head(shape, student, attention_head(shape, index, inputs));
            const HeadGradients<Real> out{.y = head_rows(shape, index, outputs.y),
                                          .dy = head_rows(shape, index, dy),
                                          .normalizer = outputs.statistics.data() +
                                                        static_cast<std::size_t>(index) * shape.length,
                                          .dq = InputGradients ? head_rows(shape, index, input_gradients.q) : nullptr,
                                          .dk = InputGradients ? head_rows(shape, index, input_gradients.k) : nullptr,
                                          .dv = InputGradients ? head_rows(shape, index, input_gradients.v) : nullptr,
                                          .q_map = maps ? &gradients.q_map(index, 0) : nullptr,
                                          .k_map = maps ? &gradients.k_map(index, 0) : nullptr,
                                          .q_bias = maps ? &gradients.q_bias(index) : nullptr,
                                          .k_bias = maps ? &gradients.k_bias(index) : nullptr,
                                          .window_factor = maps ? &gradients.window_factors(index) : nullptr};
            HeadBackward<Team, Real, InputGradients>(team, head, tiles, out).run();
        });
}

} // namespace

template <class Real>
void student_attention_backward(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients) {
    const Kokkos::Profiling::ScopedRegion region("student_attention_backward");
    if (twin::student_attention_backward(shape, student, inputs, outputs, dy, gradients, nullptr)) return;
    launch_backward<false>(shape, student, inputs, outputs, dy, gradients, AttentionInputGradients<Real>{});
}

template <class Real>
void student_attention_backward(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients,
                                const AttentionInputGradients<Real>& input_gradients) {
    const Kokkos::Profiling::ScopedRegion region("student_attention_backward");
    if (twin::student_attention_backward(shape, student, inputs, outputs, dy, gradients, &input_gradients)) return;
    Kokkos::deep_copy(Execution(), input_gradients.q, Real(0));
    Kokkos::deep_copy(Execution(), input_gradients.k, Real(0));
    Kokkos::deep_copy(Execution(), input_gradients.v, Real(0));
    launch_backward<true>(shape, student, inputs, outputs, dy, gradients, input_gradients);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void student_attention_backward<Real>(const AttentionShape&, const Student<Real>&,                        \
                                                   const AttentionInputs<Real>&, const AttentionOutputs<Real>&,        \
                                                   const Matrix<Real>&, const StudentGradients<Real>&);                \
    template void student_attention_backward<Real>(                                                                    \
        const AttentionShape&, const Student<Real>&, const AttentionInputs<Real>&, const AttentionOutputs<Real>&,      \
        const Matrix<Real>&, const StudentGradients<Real>&, const AttentionInputGradients<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
