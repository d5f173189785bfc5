#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/student.cuh"
#include "kernels/cuda/sum.cuh"
#include "kernels/floors.hpp"

#include <algorithm>

namespace lolcats::cuda {

namespace {

constexpr int entropy_rows = 64; ///< queries, and keys, of a tile: 16 a warp
constexpr int entropy_warps = entropy_rows / 16;
constexpr int entropy_threads = entropy_warps * warp_size;

LOLCATS_FUNCTION constexpr int entropy_tiles(int length) {
    return (length + entropy_rows - 1) / entropy_rows;
}

/// What is kept between the steps.
struct EntropyMemory {
    BFloat* k;     ///< [B H_kv, T, d]
    float* losses; ///< [B H, tiles, warps]
    // For the heads at work:
    BFloat* q;       ///< [count, T, d]
    BFloat* phi_q;   ///< [count, T, d']
    BFloat* phi_k;   ///< [count, T, d']
    float* far_sum;  ///< [count, T], sum of the student's weights of far keys; unused unless those alone count
    float* mass;     ///< [count, T], sum of the teacher's weights of keys whose share is not clamped
    float* dphi;     ///< [count, T, d']: of the queries, then of the keys
    float* partials; ///< of feature_map_backward

    static std::size_t loss_count(const AttentionShape& shape) {
        return static_cast<std::size_t>(shape.batch) * shape.heads * entropy_tiles(shape.length) * entropy_warps;
    }

    EntropyMemory(const AttentionShape& shape, const StudentForm& form, int count, Arena& arena)
        : k(arena.take<BFloat>(PackedKeys::elements(shape))), losses(arena.take<float>(loss_count(shape))) {
        const std::size_t p = features(form.map, form.feature_dim);
        const std::size_t rows = static_cast<std::size_t>(count) * shape.length;
        q = arena.take<BFloat>(rows * shape.head_dim);
        phi_q = arena.take<BFloat>(rows * p);
        phi_k = arena.take<BFloat>(rows * p);
        far_sum = arena.take<float>(rows);
        mass = arena.take<float>(rows);
        dphi = arena.take<float>(rows * p);
        partials = arena.take<float>(feature_map_partials({shape, 0, count}, form.feature_dim));
    }
};

struct EntropyArguments {
    Heads heads;
    StudentForm form;
    const float* window_factors;
    EntropyMemory memory;
    WeightSums sums;
    float scale;
};

/// One tile of rows of a head, queries or keys, and the warp's 16 of them.
template <int D, int P>
struct EntropyWork {
    const EntropyArguments& arguments;
    int length;
    int local; ///< the head's place among those at work
    int index; ///< its number in the batch
    int tile;
    int first; ///< the warp's first row
    float lambda;
    float gamma;

    __device__ EntropyWork(const EntropyArguments& arguments, unsigned tile)
        : arguments(arguments), length(arguments.heads.shape.length), local(static_cast<int>(blockIdx.y)),
          index(arguments.heads.first + local), tile(static_cast<int>(tile)),
          first(this->tile * entropy_rows + warp() * 16) {
        const Mixing factors = mixing(arguments.heads.shape, arguments.form, arguments.window_factors, index);
        lambda = factors.lambda;
        gamma = factors.gamma;
    }

    /// The head's rows of arrays with `width` elements a row.
    template <class T>
    __device__ T* rows(T* packed, int width) const {
        return head_rows(arguments.heads, PackedRows::queries, packed, local, width);
    }
    __device__ const BFloat* keys() const {
        return head_rows(arguments.heads, PackedRows::keys, static_cast<const BFloat*>(arguments.memory.k), local, D);
    }
    __device__ const BFloat* queries() const { return rows(static_cast<const BFloat*>(arguments.memory.q), D); }
    __device__ const BFloat* phi(const BFloat* packed) const { return rows(packed, P); }

    /// The warp's rows as a left operand.
    template <int Columns>
    __device__ void load(Pair (&left)[Columns / 16][4], const BFloat* rows) const {
        load_rows<Columns>(left, rows + static_cast<std::size_t>(first) * Columns, Columns, length - first);
    }

    /// The warp's rows of dphi.
    __device__ float* gradient_rows() const {
        return rows(arguments.memory.dphi, P) + static_cast<std::size_t>(first) * P;
    }

    __device__ bool counts_all() const { return arguments.sums.normalizer != nullptr; }
    /// The teacher's, of query n < T.
    __device__ float log_sum(int n) const {
        return arguments.sums.log_sum[static_cast<std::size_t>(index) * length + n];
    }
    __device__ float inverse_sum(int n) const {
        return __fdividef(1.0F, counts_all() ? arguments.sums.normalizer[static_cast<std::size_t>(index) * length + n]
                                             : rows(arguments.memory.far_sum, 1)[n]);
    }

    /// The keys before it are far to query n.
    __device__ int near_begin(int n) const {
        const int w = arguments.form.window;
        if (arguments.form.near == NearKeys::none) return n + 1;
        return arguments.form.near == NearKeys::terrace ? (n / w - 1) * w : n - w + 1;
    }
    /// Key i is far to the queries from it on.
    __device__ int far_begin(int i) const {
        const int w = arguments.form.window;
        if (arguments.form.near == NearKeys::none) return i;
        return arguments.form.near == NearKeys::terrace ? (i / w + 2) * w : i + w;
    }
    /// Tiles with keys that are far to one of this tile's queries.
    __device__ int far_tiles() const {
        const int end = near_begin(min((tile + 1) * entropy_rows, length) - 1);
        return end <= 0 ? 0 : entropy_tiles(end);
    }

    /// The gradient of phi_q . phi_k, which is `product`, of a far key.
    __device__ float far_gradient(float score, float product, float log_sum, float inverse, float mass) const {
        const float weight = lambda * product;
        const float own = weight * inverse < share_floor<float>
                              ? 0
                              : __fdividef(exp2_approximate((score - log_sum) * log2_e), weight);
        return arguments.scale * lambda * (mass * inverse - own);
    }
};

/// Calls `body(rows, phi, first)` for the tiles begin .. end - 1 of an array of width D and one of width P, in shared
/// memory: each is copied while the one before is used.
template <int D, int P, class Body>
__device__ void for_each_entropy_tile(int begin, int end, int length, const BFloat* rows, const BFloat* phi,
                                      const Body& body) {
    constexpr int of_rows = entropy_rows * pitch(D);
    constexpr int size = of_rows + entropy_rows * pitch(P);
    BFloat* const shared = shared_memory();
    const auto copy = [&](int tile) {
        BFloat* const buffer = shared + tile % 2 * size;
        const std::size_t first = static_cast<std::size_t>(tile) * entropy_rows;
        const int valid = length - tile * entropy_rows;
        copy_tile<D>(buffer, rows + first * D, D, entropy_rows, valid);
        copy_tile<P>(buffer + of_rows, phi + first * P, P, entropy_rows, valid);
        commit_copies();
    };
    __syncthreads(); // the buffers may be in use
    if (begin < end) copy(begin);
    for (int tile = begin; tile < end; ++tile) {
        wait_for_copies<0>();
        __syncthreads();
        if (tile + 1 < end) copy(tile + 1);
        const BFloat* const buffer = shared + tile % 2 * size;
        body(buffer, buffer + of_rows, tile * entropy_rows);
    }
}

/// What a warp knows of its 16 queries.
template <int D, int P>
struct EntropyQueries {
    const EntropyWork<D, P>& work;
    Pair q[D / 16][4];
    Pair phi[P / 16][4];
    int n[2];     ///< the lane's queries
    int begin[2]; ///< their first near keys
    int last;     ///< the warp's last query
    int last_begin;
    float scale = 1 / sqrtf(static_cast<float>(D));

    __device__ explicit EntropyQueries(const EntropyWork<D, P>& work)
        : work(work), last(min(work.first + 15, work.length - 1)), last_begin(work.near_begin(last)) {
        work.template load<D>(q, work.queries());
        work.template load<P>(phi, work.phi(work.arguments.memory.phi_q));
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            n[r] = work.first + lane_row() + 8 * r;
            begin[r] = work.near_begin(n[r]);
        }
    }

    __device__ bool exists(int r) const {
        return n[r] < work.length;
    }
    /// q . k / sqrt(d) of 16 keys.
    __device__ void scores(float (&result)[2][4], const BFloat* keys) const {
        clear(result);
        multiply_transposed<D, 16>(result, q, keys, pitch(D));
        for_each_element(result, [&](int, int, float& score) { score *= scale; });
    }
    __device__ void products(float (&result)[2][4], const BFloat* features) const {
        clear(result);
        multiply_transposed<P, 16>(result, phi, features, pitch(P));
    }
    /// Calls `body(rows, phi, key)` for 16 keys at a time, from tile `begin_tile` on to those before `end`.
    template <class Body>
    __device__ void for_each_keys(int begin_tile, int end_tile, int end, const Body& body) const {
        for_each_entropy_tile<D, P>(begin_tile, end_tile, work.length, work.keys(),
                                    work.phi(work.arguments.memory.phi_k),
                                    [&](const BFloat* rows, const BFloat* features, int first) {
                                        for (int step = 0; step < entropy_rows && first + step < end; step += 16)
                                            body(rows + step * pitch(D), features + step * pitch(P), first + step);
                                    });
    }

    /// The largest near score of each row.
    __device__ void near_maximum(float (&top)[2]) const {
        top[0] = top[1] = no_score;
        if (work.arguments.form.near == NearKeys::none) return;
        const int begin_tile = max(work.near_begin(work.tile * entropy_rows), 0) / entropy_rows;
        for_each_keys(begin_tile, work.tile + 1, last + 1, [&](const BFloat* keys, const BFloat*, int key) {
            float result[2][4];
            scores(result, keys);
            for_each_place([&](int j, int e, int r, int column) {
                if (key + column >= begin[r] && key + column <= n[r]) top[r] = fmaxf(top[r], result[j][e]);
            });
        });
        top[0] = row_maximum(top[0]);
        top[1] = row_maximum(top[1]);
    }

    /// The sum of the weights of each row's far keys, kept for the gradients.
    __device__ void far_sum(float (&sum)[2]) const {
        sum[0] = sum[1] = 0;
        for_each_keys(0, work.far_tiles(), last_begin, [&](const BFloat*, const BFloat* features, int key) {
            float result[2][4];
            products(result, features);
            for_each_place([&](int j, int e, int r, int column) {
                if (key + column < begin[r]) sum[r] += work.lambda * result[j][e];
            });
        });
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            sum[r] = row_sum(sum[r]);
            if (lane_column() == 0 && exists(r)) work.rows(work.arguments.memory.far_sum, 1)[n[r]] = sum[r];
        }
    }
};

/// One block: the loss of 64 queries and the mass that their gradients need. Sweeps over the near keys for the maximum
/// of their scores, or over the far ones for their sum, then over all that count.
template <int D, int P>
__global__ __launch_bounds__(entropy_threads) void entropy_loss_kernel(EntropyArguments arguments) {
    const EntropyWork<D, P> work(arguments, gridDim.x - 1 - blockIdx.x); // the longest first
    const EntropyQueries<D, P> queries(work);
    const bool all = work.counts_all();
    float log_sum[2] = {0, 0};
    float inverse[2] = {0, 0};
    float top[2];
    float far_sum[2];
    if (all)
        queries.near_maximum(top);
    else
        queries.far_sum(far_sum);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (!queries.exists(r)) continue;
        log_sum[r] = work.log_sum(queries.n[r]);
        inverse[r] = all ? work.inverse_sum(queries.n[r]) : 1 / far_sum[r];
    }

    float loss = 0;
    float mass[2] = {0, 0};
    const int end = all ? queries.last + 1 : queries.last_begin;
    queries.for_each_keys(
        0, all ? work.tile + 1 : work.far_tiles(), end, [&](const BFloat* keys, const BFloat* features, int key) {
            float scores[2][4];
            float products[2][4];
            queries.scores(scores, keys);
            clear(products);
            if (key < queries.last_begin) queries.products(products, features);
            for_each_place([&](int j, int e, int r, int column) {
                const bool far = key + column < queries.begin[r];
                if (!queries.exists(r) || key + column > queries.n[r] || !(all || far)) return;
                const float weight = far ? work.lambda * products[j][e]
                                         : work.gamma * exp2_approximate((scores[j][e] - top[r]) * log2_e);
                const float teacher = exp2_approximate((scores[j][e] - log_sum[r]) * log2_e);
                const float share = weight * inverse[r];
                // Written so that a NaN is kept: it must reach the loss, where it is reported.
                const bool clamped = share < share_floor<float>;
                loss -= teacher * __logf(clamped ? share_floor<float> : share);
                mass[r] += clamped ? 0 : teacher;
            });
        });
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        mass[r] = row_sum(mass[r]);
        if (lane_column() == 0 && queries.exists(r)) work.rows(arguments.memory.mass, 1)[queries.n[r]] = mass[r];
    }
    loss = warp_sum(loss);
    if (lane() == 0)
        arguments.memory
            .losses[(static_cast<std::size_t>(work.index) * gridDim.x + work.tile) * entropy_warps + warp()] = loss;
}

/// One block: dphi of 64 queries, a sweep over their far keys.
template <int D, int P>
__global__ __launch_bounds__(entropy_threads) void entropy_queries_kernel(EntropyArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const EntropyWork<D, P> work(arguments, gridDim.x - 1 - blockIdx.x);
    const EntropyQueries<D, P> queries(work);
    float log_sum[2] = {0, 0};
    float inverse[2] = {0, 0};
    float mass[2] = {0, 0};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (!queries.exists(r)) continue;
        log_sum[r] = work.log_sum(queries.n[r]);
        inverse[r] = work.inverse_sum(queries.n[r]);
        mass[r] = work.rows(arguments.memory.mass, 1)[queries.n[r]];
    }
#pragma unroll 1
    for (int feature = 0; feature < P; feature += slice) {
        float dphi[slice / 8][4];
        clear(dphi);
        queries.for_each_keys(
            0, work.far_tiles(), queries.last_begin, [&](const BFloat* keys, const BFloat* features, int key) {
                float scores[2][4];
                float products[2][4];
                queries.scores(scores, keys);
                queries.products(products, features);
                for_each_place([&](int j, int e, int r, int column) {
                    const bool far = queries.exists(r) && key + column < queries.begin[r];
                    products[j][e] =
                        far ? work.far_gradient(scores[j][e], products[j][e], log_sum[r], inverse[r], mass[r]) : 0;
                });
                multiply_step<slice>(dphi, products, features + feature, pitch(P));
            });
        store_features<slice>(dphi, work.gradient_rows() + feature, P, work.length - work.first);
    }
}

/// One block: dphi of 64 keys, a sweep over the queries to which they are far.
template <int D, int P>
__global__ __launch_bounds__(entropy_threads) void entropy_keys_kernel(EntropyArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const EntropyWork<D, P> work(arguments, blockIdx.x);
    Pair k[D / 16][4];
    Pair phi[P / 16][4];
    work.template load<D>(k, work.keys());
    work.template load<P>(phi, work.phi(arguments.memory.phi_k));
    const float scale = 1 / sqrtf(static_cast<float>(D));
    const int begin[2] = {work.far_begin(work.first + lane_row()), work.far_begin(work.first + lane_row() + 8)};
    const int warp_begin = work.far_begin(work.first);
    const int begin_tile = work.far_begin(work.tile * entropy_rows) / entropy_rows;
    const float* const all_mass = work.rows(static_cast<const float*>(arguments.memory.mass), 1);
#pragma unroll 1
    for (int feature = 0; feature < P; feature += slice) {
        float dphi[slice / 8][4];
        clear(dphi);
        for_each_entropy_tile<D, P>(
            begin_tile, static_cast<int>(gridDim.x), work.length, work.queries(), work.phi(arguments.memory.phi_q),
            [&](const BFloat* rows, const BFloat* features, int first) {
                for (int step = 0; step < entropy_rows; step += 16) {
                    if (first + step + 15 < warp_begin) continue;
                    float scores[2][4];
                    float products[2][4];
                    clear(scores);
                    clear(products);
                    // Of the lane's four queries, on their way while the products are made.
                    float log_sums[2][2];
                    float inverses[2][2];
                    float masses[2][2];
                    for_each_lane_column([&](int j, int e, int column) {
                        const int n = min(first + step + column, work.length - 1);
                        log_sums[j][e] = work.log_sum(n);
                        inverses[j][e] = work.inverse_sum(n);
                        masses[j][e] = all_mass[n];
                    });
                    multiply_transposed<D, 16>(scores, k, rows + step * pitch(D), pitch(D));
                    multiply_transposed<P, 16>(products, phi, features + step * pitch(P), pitch(P));
                    for_each_place([&](int j, int e, int r, int column) {
                        const int n = first + step + column;
                        const bool far = n < work.length && n >= begin[r];
                        products[j][e] =
                            far ? work.far_gradient(scores[j][e] * scale, products[j][e], log_sums[j][e % 2],
                                                    inverses[j][e % 2], masses[j][e % 2])
                                : 0;
                    });
                    multiply_step<slice>(dphi, products, features + step * pitch(P) + feature, pitch(P));
                }
            });
        store_features<slice>(dphi, work.gradient_rows() + feature, P, work.length - work.first);
    }
}

/// Blocks: T / 64 x count of 128 threads; shared memory 256 (d + d' + 16) bytes, 68 KiB at d = d' = 128. Each reads the
/// q and phi of its rows once and those of all others once (from L2). FLOP a head: T^2 (d + d') for the loss, and each
/// of the gradients as much again and T^2 d' more.
template <class Kernel>
void launch_entropy(const char* name, const EntropyArguments& arguments, cudaStream_t stream, const Kernel& kernel) {
    const AttentionShape& shape = arguments.heads.shape;
    const dim3 blocks(static_cast<unsigned>(entropy_tiles(shape.length)), static_cast<unsigned>(arguments.heads.count));
    for_sizes(shape, arguments.form, [&]<int D, int P>() {
        const std::size_t shared = 2 * entropy_rows * (pitch(D) + pitch(P)) * sizeof(BFloat);
        launch(name, kernel.template operator()<D, P>(), blocks, entropy_threads, shared, stream, arguments);
    });
}

/// The gradients of one slice of heads, after its loss.
void entropy_gradients(const EntropyArguments& arguments, const MapPointers& q_map, const MapPointers& k_map,
                       const StudentGradientPointers& gradients, cudaStream_t stream) {
    const auto& [heads, form, window_factors, memory, sums, scale] = arguments;
    const bool bias = has_bias(form.map);
    // As in student_attention_backward; among far keys the weights' common factor cancels.
    const bool factors = form.near != NearKeys::none && sums.normalizer != nullptr;
    const MapGradients of_q{gradients.q_map, bias ? gradients.q_bias : nullptr,
                            factors ? gradients.window_factors : nullptr, nullptr, false};
    const MapGradients of_k{gradients.k_map, bias ? gradients.k_bias : nullptr, nullptr, nullptr, false};
    launch_entropy("entropy_queries", arguments, stream, [&]<int D, int P>() { return entropy_queries_kernel<D, P>; });
    feature_map_backward(heads, form, q_map, window_factors, PackedRows::queries, memory.q, memory.dphi,
                         memory.partials, of_q, stream);
    launch_entropy("entropy_keys", arguments, stream, [&]<int D, int P>() { return entropy_keys_kernel<D, P>; });
    feature_map_backward(heads, form, k_map, window_factors, PackedRows::keys, memory.k, memory.dphi, memory.partials,
                         of_k, stream);
}

} // namespace

std::size_t attention_cross_entropy_workspace(const AttentionShape& shape, const StudentForm& form) {
    return workspace_bytes<EntropyMemory>(shape, form);
}

void attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameterPointers& parameters, const float* q, const float* k,
                             const WeightSums& sums, float scale, const StudentGradientPointers* gradients,
                             double* loss, const Workspace& workspace, cudaStream_t stream) {
    if (!supports(shape, form)) throw std::invalid_argument("attention_cross_entropy: this shape has no CUDA twin");
    Arena arena(workspace);
    const int count = heads_at_a_time<EntropyMemory>(shape, form);
    const EntropyMemory memory(shape, form, count, arena);
    const MapPointers q_map = map_pointers(form, parameters.q_map, parameters.q_bias);
    const MapPointers k_map = map_pointers(form, parameters.k_map, parameters.k_bias);
    pack_heads(shape, shape.kv_heads, 0, shape.batch * shape.kv_heads, k, memory.k, stream);
    const int all = shape.batch * shape.heads;
    for (int first = 0; first < all; first += count) {
        const Heads heads{shape, first, std::min(count, all - first)};
        const EntropyArguments arguments{heads, form, parameters.window_factors, memory, sums, scale};
        pack_heads(shape, shape.heads, first, heads.count, q, memory.q, stream);
        feature_map_forward(heads, q_map, PackedRows::queries, memory.q, memory.phi_q, stream);
        feature_map_forward(heads, k_map, PackedRows::keys, memory.k, memory.phi_k, stream);
        launch_entropy("entropy_loss", arguments, stream, [&]<int D, int P>() { return entropy_loss_kernel<D, P>; });
        if (gradients != nullptr) entropy_gradients(arguments, q_map, k_map, *gradients, stream);
    }
    sum_parts(memory.losses, EntropyMemory::loss_count(shape), loss, stream);
}

} // namespace lolcats::cuda
