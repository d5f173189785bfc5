#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/student.cuh"

#include <algorithm>

namespace lolcats::cuda {

namespace {

constexpr int largest_threads = 256; ///< of a chunk: two a row of the largest window

/// What is kept between the steps of the backward pass. D_n: the normalizer of query n.
struct BackwardMemory {
    PackedKeys keys;
    // For the heads at work:
    BFloat* q;           ///< [count, T, d]
    BFloat* dy;          ///< [count, T, d], dy / D
    float* output_dot;   ///< [count, T], u = dy . y / D
    BFloat* phi_q;       ///< [count, T, d']
    BFloat* phi_k;       ///< [count, T, d']
    BFloat* states;      ///< [count, chunks, d', d]: of keys for the queries, then of queries for the keys
    float* sums;         ///< [count, chunks, d']
    float* dphi;         ///< [count, T, d']: of the queries, then of the keys
    float* near_total;   ///< [count, T], sum over near keys of their weight's gradient times the weight
    float* near_maximum; ///< [count, T], the largest near score, as multiplied by log2(e)
    float* tie_share;    ///< [count, T], what each near key at the maximum takes of near_total
    float* partials;     ///< of feature_map_backward

    BackwardMemory(const AttentionShape& shape, const StudentForm& form, int count, Arena& arena) : keys(shape, arena) {
        const std::size_t p = features(form.map, form.feature_dim);
        const std::size_t d = shape.head_dim;
        const std::size_t rows = static_cast<std::size_t>(count) * shape.length;
        const std::size_t chunks = static_cast<std::size_t>(count) * chunk_count(shape.length, form.window);
        q = arena.take<BFloat>(rows * d);
        dy = arena.take<BFloat>(rows * d);
        output_dot = arena.take<float>(rows);
        phi_q = arena.take<BFloat>(rows * p);
        phi_k = arena.take<BFloat>(rows * p);
        states = arena.take<BFloat>(chunks * p * d);
        sums = arena.take<float>(chunks * p);
        dphi = arena.take<float>(rows * p);
        near_total = arena.take<float>(rows);
        near_maximum = arena.take<float>(rows);
        tie_share = arena.take<float>(rows);
        partials = arena.take<float>(feature_map_partials({shape, 0, count}, form.feature_dim));
    }
};

struct BackwardArguments {
    Heads heads;
    StudentForm form;
    const float* window_factors;
    BackwardMemory memory;
    StudentOutputs outputs;
    InputGradientPointers inputs; ///< null: not wanted
};

/// What the kernels of a chunk have in common.
template <int D>
struct ChunkWork {
    const BackwardArguments& arguments;
    const AttentionShape& shape;
    NearKeys near;
    int w;
    int chunk;
    int local;   ///< the head's place among those at work
    int index;   ///< its number in the batch
    int first;   ///< first row of the chunk
    int block16; ///< the warp's first row, in its chunk

    __device__ explicit ChunkWork(const BackwardArguments& arguments)
        : arguments(arguments), shape(arguments.heads.shape), near(arguments.form.near), w(arguments.form.window),
          chunk(static_cast<int>(blockIdx.x)), local(static_cast<int>(blockIdx.y)),
          index(arguments.heads.first + local), first(chunk * w), block16(warp() * 16) {}

    __device__ int chunks() const { return static_cast<int>(gridDim.x); }
    __device__ int valid() const { return shape.length - first - block16; }
    __device__ Mixing factors() const { return mixing(shape, arguments.form, arguments.window_factors, index); }
    __device__ std::size_t state_index() const { return static_cast<std::size_t>(local) * gridDim.x + blockIdx.x; }

    /// The head's rows of arrays with `width` elements a row.
    template <class T>
    __device__ T* queries(T* packed, int width) const {
        return head_rows(arguments.heads, Rows::queries, packed, local, width);
    }
    __device__ const BFloat* keys(const BFloat* packed) const {
        return head_rows(arguments.heads, Rows::keys, packed, local, D);
    }

    /// Starts to copy the rows of chunk `from` of an array with Columns elements a row.
    template <int Columns>
    __device__ void copy(BFloat* tile, const BFloat* rows, int from) const {
        copy_tile<Columns>(tile, rows + static_cast<std::size_t>(from) * w * Columns, Columns, w,
                           shape.length - from * w);
    }

    /// The warp's 16 rows as a left operand.
    template <int Columns>
    __device__ void load(Pair (&left)[Columns / 16][4], const BFloat* rows) const {
        load_rows<Columns>(left, rows + static_cast<std::size_t>(first + block16) * Columns, Columns, valid());
    }

    /// Writes the warp's rows of a gradient [B T, H d], or adds to it.
    __device__ void store(const float (&gradient)[D / 8][4], float factor, bool add, float* out) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = lane_row() + 8 * r;
            if (row >= valid()) continue;
            float* const to = out + head_offset(shape, shape.heads, index) +
                              static_cast<std::size_t>(first + block16 + row) * shape.heads * D + lane_column();
            float2 old[D / 8] = {};
            if (add) {
#pragma unroll
                for (int j = 0; j < D / 8; ++j) old[j] = *reinterpret_cast<const float2*>(to + 8 * j);
            }
#pragma unroll
            for (int j = 0; j < D / 8; ++j)
                *reinterpret_cast<float2*>(to + 8 * j) = {old[j].x + factor * gradient[j][2 * r],
                                                          old[j].y + factor * gradient[j][2 * r + 1]};
        }
    }
};

/// A statistic of rows, of which those past the end count as zero.
struct RowStatistic {
    const float* rows; ///< of the head
    int length;

    __device__ float operator()(int row) const { return row < length ? rows[row] : 0; }
};

constexpr int scale_threads = 256;

/// A warp a row: dy / D as bf16, and u.
template <int D>
__global__ __launch_bounds__(scale_threads) void scale_output_gradient_kernel(BackwardArguments arguments) {
    const AttentionShape& shape = arguments.heads.shape;
    const int n = static_cast<int>(blockIdx.x) * (scale_threads / warp_size) + warp();
    if (n >= shape.length) return;
    const int local = static_cast<int>(blockIdx.y);
    const int index = arguments.heads.first + local;
    const std::size_t at = head_offset(shape, shape.heads, index) + static_cast<std::size_t>(n) * shape.heads * D;
    const std::size_t packed = static_cast<std::size_t>(local) * shape.length + n;
    const float inverse = 1 / arguments.outputs.normalizer[static_cast<std::size_t>(index) * shape.length + n];
    float dot = 0;
#pragma unroll
    for (int column = 2 * lane(); column < D; column += 2 * warp_size) {
        const float2 dy = *reinterpret_cast<const float2*>(arguments.outputs.dy + at + column);
        const float2 y = *reinterpret_cast<const float2*>(arguments.outputs.y + at + column);
        const Pair rounded = pack(dy.x * inverse, dy.y * inverse);
        *reinterpret_cast<Pair*>(arguments.memory.dy + packed * D + column) = rounded;
        // Of the rounded gradient: dy . v_i / D - u then loses nothing of v_i - y where the two are close.
        dot += low(rounded) * y.x + high(rounded) * y.y;
    }
    dot = warp_sum(dot);
    if (lane() == 0) arguments.memory.output_dot[packed] = dot;
}

/// Tiles of the far kernels: the state [P, D], and a chunk's rows of width D and P where keys of a chunk can be far.
template <int D, int P>
struct FarTiles {
    BFloat* state;
    BFloat* rows;
    BFloat* phi;

    __device__ FarTiles(BFloat* memory, int w) : state(memory), rows(state + P * pitch(D)), phi(rows + w * pitch(D)) {}

    static std::size_t bytes(const StudentForm& form) {
        const int local = has_local_far(form.near) ? form.window * (pitch(D) + pitch(P)) : 0;
        return static_cast<std::size_t>(P * pitch(D) + local) * sizeof(BFloat);
    }
};

/// Scales a slice of dphi by lambda and stores it.
template <int D, int Columns>
__device__ void store_feature_gradient(const ChunkWork<D>& work, float (&dphi)[Columns / 8][4], float lambda,
                                       float* out, int width, int column) {
    for_each_element(dphi, [=](int, int, float& value) { value *= lambda; });
    store_features<Columns>(dphi, out + static_cast<std::size_t>(work.first + work.block16) * width + column, width,
                            work.valid());
}

/// phi . dphi of rows g and g + 8, the lane's part for a slice of features.
template <int D, int Columns>
__device__ void add_products(const ChunkWork<D>& work, const float (&dphi)[Columns / 8][4], const BFloat* phi,
                             int width, int column, float (&sums)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = lane_row() + 8 * r;
        if (row >= work.valid()) continue;
        const BFloat* const from =
            phi + static_cast<std::size_t>(work.first + work.block16 + row) * width + column + lane_column();
#pragma unroll
        for (int j = 0; j < Columns / 8; ++j) {
            const Pair pair = *reinterpret_cast<const Pair*>(from + 8 * j);
            sums[r] += low(pair) * dphi[j][2 * r] + high(pair) * dphi[j][2 * r + 1];
        }
    }
}

/// One block: dphi_q = lambda (S dy - u z) / D of one chunk of queries, and the same for far keys that it sees one by
/// one.
template <int D, int P>
__global__ __launch_bounds__(largest_threads) void far_queries_kernel(BackwardArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const ChunkWork<D> work(arguments);
    const BackwardMemory& memory = arguments.memory;
    const FarTiles<D, P> tiles(shared_memory(), work.w);
    const bool has_state = work.chunk >= state_lag(work.near);
    const int other = work.chunk - local_far_lag(work.near);
    const bool has_local = has_local_far(work.near) && other >= 0;
    if (has_state) copy_state<D, P>(tiles.state, memory.states, work.state_index());
    if (has_local) {
        work.template copy<D>(tiles.rows, work.keys(memory.keys.v), other);
        work.template copy<P>(tiles.phi, work.queries(memory.phi_k, P), other);
    }
    Pair dy[D / 16][4];
    work.template load<D>(dy, work.queries(memory.dy, D));
    const RowStatistic statistic{work.queries(memory.output_dot, 1), work.shape.length};
    const int row = work.first + work.block16 + lane_row();
    const float u[2] = {statistic(row), statistic(row + 8)};
    const float lambda = work.factors().lambda;
    const float* const z = memory.sums + work.state_index() * P;
    wait_for_copies_of_block();

    float products[2] = {0, 0};
#pragma unroll 1
    for (int feature = 0; feature < P; feature += slice) {
        float dphi[slice / 8][4];
        clear(dphi);
        if (has_state) {
            multiply_transposed<D, slice>(dphi, dy, tiles.state + feature * pitch(D), pitch(D));
            for_each_element(dphi, [&](int row, int column, float& value) {
                value -= (row < 8 ? u[0] : u[1]) * z[feature + column];
            });
        }
        for (int key = 0; has_local && key <= work.block16; key += 16) {
            float gradient[2][4];
            clear(gradient);
            multiply_transposed<D, 16>(gradient, dy, tiles.rows + key * pitch(D), pitch(D));
            for_each_element(gradient, [&](int row, int column, float& value) {
                value = key + column <= work.block16 + row ? value - (row < 8 ? u[0] : u[1]) : 0;
            });
            Pair left[4];
            as_left(left, gradient, 0);
            multiply_step<slice>(dphi, left, tiles.phi + key * pitch(P) + feature, pitch(P));
        }
        store_feature_gradient<D, slice>(work, dphi, lambda, work.queries(memory.dphi, P), P, feature);
        add_products<D, slice>(work, dphi, work.queries(memory.phi_q, P), P, feature, products);
    }
    // Scaling all weights changes nothing, so what the near ones gain the far ones lose.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float total = -row_sum(products[r]);
        if (lane_column() == 0 && lane_row() + 8 * r < work.valid())
            work.queries(memory.near_total, 1)[row + 8 * r] = total;
    }
}

/// One block: dphi_k = lambda (P v - p) of one chunk of keys, P and p summed over the queries to which they are far,
/// and with `inputs` dv = lambda P^T phi_k.
template <int D, int P>
__global__ __launch_bounds__(largest_threads) void far_keys_kernel(BackwardArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const ChunkWork<D> work(arguments);
    const BackwardMemory& memory = arguments.memory;
    const FarTiles<D, P> tiles(shared_memory(), work.w);
    const bool has_state = work.chunk + state_lag(work.near) < work.chunks();
    const int other = work.chunk + local_far_lag(work.near);
    const bool has_local = has_local_far(work.near) && other < work.chunks();
    if (has_state) copy_state<D, P>(tiles.state, memory.states, work.state_index());
    if (has_local) {
        work.template copy<D>(tiles.rows, work.queries(memory.dy, D), other);
        work.template copy<P>(tiles.phi, work.queries(memory.phi_q, P), other);
    }
    const RowStatistic u{work.queries(memory.output_dot, 1) + other * work.w, work.shape.length - other * work.w};
    const float lambda = work.factors().lambda;
    const float* const p = memory.sums + work.state_index() * P;
    wait_for_copies_of_block();

    {
        Pair v[D / 16][4];
        work.template load<D>(v, work.keys(memory.keys.v));
#pragma unroll 1
        for (int feature = 0; feature < P; feature += slice) {
            float dphi[slice / 8][4];
            clear(dphi);
            if (has_state) {
                multiply_transposed<D, slice>(dphi, v, tiles.state + feature * pitch(D), pitch(D));
                for_each_element(dphi, [&](int, int column, float& value) { value -= p[feature + column]; });
            }
            for (int query = work.block16; has_local && query < work.w; query += 16) {
                float gradient[2][4];
                clear(gradient);
                multiply_transposed<D, 16>(gradient, v, tiles.rows + query * pitch(D), pitch(D));
                for_each_element(gradient, [&](int row, int column, float& value) {
                    value = work.block16 + row <= query + column ? value - u(query + column) : 0;
                });
                Pair left[4];
                as_left(left, gradient, 0);
                multiply_step<slice>(dphi, left, tiles.phi + query * pitch(P) + feature, pitch(P));
            }
            store_feature_gradient<D, slice>(work, dphi, lambda, work.queries(memory.dphi, P), P, feature);
        }
    }
    if (arguments.inputs.v == nullptr) return;
    float dv[D / 8][4];
    clear(dv);
    Pair phi[P / 16][4];
    work.template load<P>(phi, work.queries(memory.phi_k, P));
    if (has_state) multiply<P, D>(dv, phi, tiles.state, pitch(D));
    for (int query = work.block16; has_local && query < work.w; query += 16) {
        float weights[2][4];
        clear(weights);
        multiply_transposed<P, 16>(weights, phi, tiles.phi + query * pitch(P), pitch(P));
        for_each_element(weights, [&](int row, int column, float& weight) {
            if (work.block16 + row > query + column) weight = 0;
        });
        Pair left[4];
        as_left(left, weights, 0);
        multiply_step<D>(dv, left, tiles.rows + query * pitch(D), pitch(D));
    }
    work.store(dv, lambda, work.near != NearKeys::none, arguments.inputs.v);
}

/// Whether key `key` of the chunk before, or of the query's own, is near to query `query`, both counted in their
/// chunks.
__device__ inline bool is_near(NearKeys near, bool own, int query, int key) {
    if (own) return key <= query;
    return near == NearKeys::terrace || key > query;
}

/// The largest of the scores seen and how many have its value, of one row in four lanes.
struct CountedMaximum {
    float top = no_score;
    float count = 0;

    __device__ void see(float score) {
        count = score > top ? 1 : score == top ? count + 1 : count;
        top = fmaxf(top, score);
    }
    __device__ void combine_lanes() {
        const float all = row_maximum(top);
        count = row_sum(top == all ? count : 0);
        top = all;
    }
};

/// One block: dq of one chunk of queries through its near keys, and the statistics that near_keys_kernel needs. Scores
/// are computed twice: to find the maximum, then for the gradient.
template <int D>
__global__ __launch_bounds__(largest_threads) void near_queries_kernel(BackwardArguments arguments) {
    const ChunkWork<D> work(arguments);
    const BackwardMemory& memory = arguments.memory;
    const int w = work.w;
    const int tile_elements = w * pitch(D);
    BFloat* const shared = shared_memory(); // K, V of the chunk, then of the one before
    for (int back = 0; back < 2 && back <= work.chunk; ++back) {
        work.template copy<D>(shared + 2 * back * tile_elements, work.keys(memory.keys.k), work.chunk - back);
        work.template copy<D>(shared + (2 * back + 1) * tile_elements, work.keys(memory.keys.v), work.chunk - back);
    }
    Pair q[D / 16][4];
    work.template load<D>(q, work.queries(memory.q, D));
    wait_for_copies_of_block();

    const float scale = 1 / sqrtf(static_cast<float>(D));
    /// Calls `body(scores, K, V, visible)` for each 16 keys that may be near.
    const auto for_each_keys = [&](const auto& body) {
        for (int back = 0; back < 2 && back <= work.chunk; ++back) {
            const bool own = back == 0;
            const int begin = own || work.near == NearKeys::terrace ? 0 : work.block16;
            const int end = own ? work.block16 + 16 : w;
            for (int key = begin; key < end; key += 16) {
                const BFloat* const keys = shared + 2 * back * tile_elements + key * pitch(D);
                float scores[2][4];
                clear(scores);
                multiply_transposed<D, 16>(scores, q, keys, pitch(D));
                for_each_element(scores, [=](int, int, float& score) { score *= scale * log2_e; });
                body(scores, keys, keys + tile_elements,
                     [&](int row, int column) { return is_near(work.near, own, work.block16 + row, key + column); });
            }
        }
    };

    CountedMaximum maximum[2];
    for_each_keys([&](const auto& scores, const BFloat*, const BFloat*, const auto& visible) {
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (visible(lane_row() + e / 2 * 8, j * 8 + lane_column() + e % 2)) maximum[e / 2].see(scores[j][e]);
    });
    maximum[0].combine_lanes();
    maximum[1].combine_lanes();

    const int n = work.first + work.block16 + lane_row();
    const int length = work.shape.length;
    const RowStatistic output_dot{work.queries(memory.output_dot, 1), length};
    const RowStatistic near_total{work.queries(memory.near_total, 1), length};
    const float u[2] = {output_dot(n), output_dot(n + 8)};
    const float share[2] = {near_total(n) / maximum[0].count, near_total(n + 8) / maximum[1].count};
#pragma unroll
    for (int r = 0; r < 2; ++r)
        if (lane_column() == 0 && lane_row() + 8 * r < work.valid()) {
            work.queries(memory.near_maximum, 1)[n + 8 * r] = maximum[r].top;
            work.queries(memory.tie_share, 1)[n + 8 * r] = share[r];
        }

    Pair dy[D / 16][4];
    work.template load<D>(dy, work.queries(memory.dy, D));
    const float gamma = work.factors().gamma;
    float dq[D / 8][4];
    clear(dq);
    for_each_keys([&](auto& scores, const BFloat* keys, const BFloat* values, const auto& visible) {
        float gradient[2][4];
        clear(gradient);
        multiply_transposed<D, 16>(gradient, dy, values, pitch(D));
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int r = e / 2;
                const float score = scores[j][e];
                const float weight = gamma * exp2_approximate(score - maximum[r].top);
                // The maximum is part of the function: lowering it raises every near weight.
                const float through_maximum = score == maximum[r].top ? share[r] : 0;
                scores[j][e] = visible(lane_row() + r * 8, j * 8 + lane_column() + e % 2)
                                   ? weight * (gradient[j][e] - u[r]) - through_maximum
                                   : 0;
            }
        Pair left[4];
        as_left(left, scores, 0);
        multiply_step<D>(dq, left, keys, pitch(D));
    });
    work.store(dq, scale, false, arguments.inputs.q);
}

/// One block: dk and dv of one chunk of keys through the queries to which they are near. Products are those of
/// near_queries_kernel transposed: the same terms in the same order, so that a score equals its row's maximum here if
/// it did there.
template <int D>
__global__ __launch_bounds__(largest_threads) void near_keys_kernel(BackwardArguments arguments) {
    const ChunkWork<D> work(arguments);
    const BackwardMemory& memory = arguments.memory;
    const int w = work.w;
    const int tile_elements = w * pitch(D);
    BFloat* const shared = shared_memory(); // K, V, then Q, dy of the chunk and of the one after
    const int following = work.chunk + 1 < work.chunks() ? 2 : 1;
    work.template copy<D>(shared, work.keys(memory.keys.k), work.chunk);
    work.template copy<D>(shared + tile_elements, work.keys(memory.keys.v), work.chunk);
    for (int after = 0; after < following; ++after) {
        work.template copy<D>(shared + (2 + 2 * after) * tile_elements, work.queries(memory.q, D), work.chunk + after);
        work.template copy<D>(shared + (3 + 2 * after) * tile_elements, work.queries(memory.dy, D), work.chunk + after);
    }
    const BFloat* const k = shared + work.block16 * pitch(D);
    const BFloat* const v = k + tile_elements;
    const float scale = 1 / sqrtf(static_cast<float>(D));
    const float gamma = work.factors().gamma;
    float dk[D / 8][4];
    float dv[D / 8][4];
    clear(dk);
    clear(dv);
    wait_for_copies_of_block();

    for (int after = 0; after < following; ++after) {
        const bool own = after == 0;
        const int begin = own ? work.block16 : 0;
        const int end = own || work.near == NearKeys::terrace ? w : work.block16 + 16;
        const int first = work.first + after * w;
        const RowStatistic output_dot{work.queries(memory.output_dot, 1), work.shape.length};
        const RowStatistic maximum{work.queries(memory.near_maximum, 1), work.shape.length};
        const RowStatistic tie_share{work.queries(memory.tie_share, 1), work.shape.length};
        for (int query = begin; query < end; query += 16) {
            const BFloat* const q = shared + (2 + 2 * after) * tile_elements + query * pitch(D);
            const BFloat* const dy = q + tile_elements;
            float weights[2][4];
            float gradient[2][4];
            clear(weights);
            clear(gradient);
            // Of the lane's four queries, on their way while the products are made.
            float tops[2][2];
            float shares[2][2];
            float dots[2][2];
            for_each_lane_column([&](int j, int e, int column) {
                const int n = first + query + column;
                tops[j][e] = maximum(n);
                shares[j][e] = tie_share(n);
                dots[j][e] = output_dot(n);
            });
#pragma unroll
            for (int step = 0; step < D; step += 16) {
                Pair left[4];
                load_left(left, k + step, pitch(D));
                multiply_step_transposed<16>(weights, left, q + step, pitch(D));
                load_left(left, v + step, pitch(D));
                multiply_step_transposed<16>(gradient, left, dy + step, pitch(D));
            }
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int key = work.block16 + lane_row() + e / 2 * 8;
                    const int column = query + j * 8 + lane_column() + e % 2;
                    const bool visible = first + column < work.shape.length && is_near(work.near, own, column, key);
                    const float score = weights[j][e] * (scale * log2_e);
                    const float top = tops[j][e % 2];
                    const float weight = gamma * exp2_approximate(score - top);
                    const float through_maximum = score == top ? shares[j][e % 2] : 0;
                    weights[j][e] = visible ? weight : 0;
                    gradient[j][e] = visible ? weight * (gradient[j][e] - dots[j][e % 2]) - through_maximum : 0;
                }
            Pair left[4];
            as_left(left, weights, 0);
            multiply_step<D>(dv, left, dy, pitch(D));
            as_left(left, gradient, 0);
            multiply_step<D>(dk, left, q, pitch(D));
        }
    }
    work.store(dk, scale, false, arguments.inputs.k);
    work.store(dv, 1, false, arguments.inputs.v);
}

dim3 chunk_blocks(const BackwardArguments& arguments) {
    const Heads& heads = arguments.heads;
    return {static_cast<unsigned>(chunk_count(heads.shape.length, arguments.form.window)),
            static_cast<unsigned>(heads.count)};
}

/// Calls `body.template operator()<d>()`.
template <class Body>
void for_head_dim(int head_dim, const Body& body) {
    switch (head_dim) {
    case 32:
        return body.template operator()<32>();
    case 64:
        return body.template operator()<64>();
    default:
        return body.template operator()<128>();
    }
}

/// Blocks: T / 8 x count of 256 threads. Moves 10 d bytes a row.
void scale_output_gradient(const BackwardArguments& arguments, cudaStream_t stream) {
    constexpr int rows = scale_threads / warp_size;
    const dim3 blocks(static_cast<unsigned>((arguments.heads.shape.length + rows - 1) / rows),
                      static_cast<unsigned>(arguments.heads.count));
    for_head_dim(arguments.heads.shape.head_dim, [&]<int D>() {
        launch("scale_output_gradient", scale_output_gradient_kernel<D>, blocks, scale_threads, 0, stream, arguments);
    });
}

/// Blocks: chunks x count of 2 w threads; shared memory d' (d + 8) bf16, 34 KiB at d = d' = 128, and w (d + d' + 16)
/// more unless for the terrace. Moves, a row, 2 d + 4 d' bytes and 2 d' d / w of state; 2 d' d FLOP, with local far
/// keys w (d + d') more.
void far_queries(const BackwardArguments& arguments, cudaStream_t stream) {
    const StudentForm& form = arguments.form;
    for_sizes(arguments.heads.shape.head_dim, features(form.map, form.feature_dim), [&]<int D, int P>() {
        launch("far_queries", far_queries_kernel<D, P>, chunk_blocks(arguments), 2 * form.window,
               FarTiles<D, P>::bytes(form), stream, arguments);
    });
}

/// As far_queries; with dv twice its FLOP and 4 d bytes a row more, 8 d if it adds to them.
void far_keys(const BackwardArguments& arguments, cudaStream_t stream) {
    const StudentForm& form = arguments.form;
    for_sizes(arguments.heads.shape.head_dim, features(form.map, form.feature_dim), [&]<int D, int P>() {
        launch("far_keys", far_keys_kernel<D, P>, chunk_blocks(arguments), 2 * form.window, FarTiles<D, P>::bytes(form),
               stream, arguments);
    });
}

/// Blocks: chunks x count of 2 w threads each; shared memory 4 w (d + 8) and 6 w (d + 8) bf16, 68 and 102 KiB at w =
/// 64, d = 128. Move, a row, 4 d bytes in and 4 d out, and 8 d in and 8 d out, neighbours' rows apart; 12 w d and 12 w
/// d FLOP for the terrace, two thirds of it for a sliding window.
void near_gradients(const BackwardArguments& arguments, cudaStream_t stream) {
    const int window = arguments.form.window;
    for_head_dim(arguments.heads.shape.head_dim, [&]<int D>() {
        const std::size_t tile = window * pitch(D) * sizeof(BFloat);
        launch("near_queries", near_queries_kernel<D>, chunk_blocks(arguments), 2 * window, 4 * tile, stream,
               arguments);
        launch("near_keys", near_keys_kernel<D>, chunk_blocks(arguments), 2 * window, 6 * tile, stream, arguments);
    });
}

/// The gradients of one slice of heads.
void heads_backward(const BackwardArguments& arguments, const MapPointers& q_map, const MapPointers& k_map,
                    const StudentGradientPointers& gradients, cudaStream_t stream) {
    const auto& [heads, form, window_factors, memory, outputs, inputs] = arguments;
    const bool near = form.near != NearKeys::none;
    const bool bias = has_bias(form.map);
    const MapGradients q_gradients{gradients.q_map, bias ? gradients.q_bias : nullptr,
                                   near ? gradients.window_factors : nullptr, inputs.q, near};
    const MapGradients k_gradients{gradients.k_map, bias ? gradients.k_bias : nullptr, nullptr, inputs.k, near};
    scale_output_gradient(arguments, stream);
    feature_map_forward(heads, q_map, Rows::queries, memory.q, memory.phi_q, stream);
    feature_map_forward(heads, k_map, Rows::keys, memory.keys.k, memory.phi_k, stream);
    scan_states(heads, form, Direction::forward, memory.phi_k, Rows::keys, memory.keys.v, nullptr, memory.states,
                memory.sums, stream);
    far_queries(arguments, stream);
    if (near && inputs.q != nullptr) near_gradients(arguments, stream);
    feature_map_backward(heads, form, q_map, window_factors, Rows::queries, memory.q, memory.dphi, memory.partials,
                         q_gradients, stream);
    scan_states(heads, form, Direction::backward, memory.phi_q, Rows::queries, memory.dy, memory.output_dot,
                memory.states, memory.sums, stream);
    far_keys(arguments, stream);
    feature_map_backward(heads, form, k_map, window_factors, Rows::keys, memory.keys.k, memory.dphi, memory.partials,
                         k_gradients, stream);
}

} // namespace

std::size_t student_attention_backward_workspace(const AttentionShape& shape, const StudentForm& form) {
    return workspace_bytes<BackwardMemory>(shape, form);
}

void student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameterPointers& parameters, const AttentionInputs& inputs,
                                const StudentOutputs& outputs, const StudentGradientPointers& gradients,
                                const InputGradientPointers* input_gradients, const Workspace& workspace,
                                cudaStream_t stream) {
    if (!supports(shape, form)) throw std::invalid_argument("student_attention_backward: this shape has no CUDA twin");
    Arena arena(workspace);
    const int count = heads_at_a_time<BackwardMemory>(shape, form);
    const BackwardMemory memory(shape, form, count, arena);
    const MapPointers q_map = map_pointers(form, parameters.q_map, parameters.q_bias);
    const MapPointers k_map = map_pointers(form, parameters.k_map, parameters.k_bias);
    const InputGradientPointers wanted =
        input_gradients != nullptr ? *input_gradients : InputGradientPointers{nullptr, nullptr, nullptr};
    pack_keys(shape, inputs, memory.keys, stream);
    const int all = shape.batch * shape.heads;
    for (int first = 0; first < all; first += count) {
        const Heads heads{shape, first, std::min(count, all - first)};
        pack_heads(shape, shape.heads, first, heads.count, inputs.q, memory.q, stream);
        heads_backward({heads, form, parameters.window_factors, memory, outputs, wanted}, q_map, k_map, gradients,
                       stream);
    }
}

} // namespace lolcats::cuda
