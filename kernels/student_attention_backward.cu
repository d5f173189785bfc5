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

/// Writes the warp's rows of a gradient [B T, H d] times `factor`, or adds them.
template <int D>
__device__ void store_gradient(const ChunkWork<D>& work, const float (&gradient)[D / 8][4], float factor, bool add,
                               float* out) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = lane_row() + 8 * r;
        if (row >= work.valid()) continue;
        float* const to = out + head_offset(work.shape, work.shape.heads, work.index) +
                          static_cast<std::size_t>(work.first + work.block16 + row) * work.shape.heads * D +
                          lane_column();
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

/// One number for each row of a head; zero past the end.
struct RowStatistic {
    const float* rows;
    int length;

    __device__ float operator()(int row) const { return row < length ? rows[row] : 0; }
};

constexpr int scale_threads = 256;

/// One warp: dy / D as bf16, and u, of one row.
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
        // Of the rounded gradient, as dy . v_i is: where v_i is close to y, dy . v_i / D - u is then accurate.
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
    store_features<Columns>(dphi, work.own(out, width) + column, width, work.valid());
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

/// One block: dphi_q = lambda (S dy / D - u z) of one chunk of queries, S and z being its far state, and the same for
/// the far keys that are not in it.
template <int D, int P>
__global__ __launch_bounds__(largest_threads) void far_queries_kernel(BackwardArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const ChunkWork<D> work(arguments.heads, arguments.form);
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
    const float lambda = work.factors(arguments.window_factors).lambda;
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
            multiply_step<slice>(dphi, gradient, tiles.phi + key * pitch(P) + feature, pitch(P));
        }
        store_feature_gradient<D, slice>(work, dphi, lambda, work.queries(memory.dphi, P), P, feature);
        add_products<D, slice>(work, dphi, work.queries(memory.phi_q, P), P, feature, products);
    }
    // Scaling all weights changes nothing: the sums of weight times gradient over near and far keys add up to zero.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float total = -row_sum(products[r]);
        if (lane_column() == 0 && lane_row() + 8 * r < work.valid())
            work.queries(memory.near_total, 1)[row + 8 * r] = total;
    }
}

/// One block: dphi_k = lambda (P v - p) of one chunk of keys, with P = sum phi_q (dy / D)^T and p = sum u phi_q over
/// the queries to which they are far, and with `inputs` dv = lambda P^T phi_k.
template <int D, int P>
__global__ __launch_bounds__(largest_threads) void far_keys_kernel(BackwardArguments arguments) {
    constexpr int slice = feature_slice<P>;
    const ChunkWork<D> work(arguments.heads, arguments.form);
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
    const float lambda = work.factors(arguments.window_factors).lambda;
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
                multiply_step<slice>(dphi, gradient, tiles.phi + query * pitch(P) + feature, pitch(P));
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
        multiply_step<D>(dv, weights, tiles.rows + query * pitch(D), pitch(D));
    }
    store_gradient(work, dv, lambda, work.near != NearKeys::none, arguments.inputs.v);
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

template <int D>
__device__ float score_scale() {
    return 1 / sqrtf(static_cast<float>(D));
}

/// From q . k to the score of a near pair, in units in which its exponential is a power of 2. Both kernels below use
/// it, so that a score equals its row's maximum in the one if it does in the other.
template <int D>
__device__ float near_score(float product) {
    return product * (score_scale<D>() * log2_e);
}

/// What a query's near pairs need of it.
struct NearQuery {
    float top;   ///< its largest near score
    float share; ///< tie_share
    float dot;   ///< output_dot
};

struct NearPair {
    float weight;
    float score_gradient;
};

/// A pair of a query and a key near to it; value_dot: dy . v / D.
__device__ inline NearPair near_pair(float score, float value_dot, float gamma, const NearQuery& query) {
    const float weight = gamma * exp2_approximate(score - query.top);
    // The maximum is part of the function: lowering it raises every near weight.
    const float through_maximum = score == query.top ? query.share : 0;
    return {weight, weight * (value_dot - query.dot) - through_maximum};
}

/// One block: dq of one chunk of queries through its near keys, and the statistics that near_keys_kernel needs. Scores
/// are computed twice: to find the maximum, then for the gradient.
template <int D>
__global__ __launch_bounds__(largest_threads) void near_queries_kernel(BackwardArguments arguments) {
    const ChunkWork<D> work(arguments.heads, arguments.form);
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
                for_each_element(scores, [](int, int, float& score) { score = near_score<D>(score); });
                body(scores, keys, keys + tile_elements, [&](int r, int column) {
                    return is_near(work.near, own, work.block16 + lane_row() + 8 * r, key + column);
                });
            }
        }
    };

    CountedMaximum maximum[2];
    for_each_keys([&](const auto& scores, const BFloat*, const BFloat*, const auto& visible) {
        for_each_place([&](int j, int e, int r, int column) {
            if (visible(r, column)) maximum[r].see(scores[j][e]);
        });
    });
    maximum[0].combine_lanes();
    maximum[1].combine_lanes();

    const int n = work.first + work.block16 + lane_row();
    const RowStatistic output_dot{work.queries(memory.output_dot, 1), work.shape.length};
    const RowStatistic near_total{work.queries(memory.near_total, 1), work.shape.length};
    const NearQuery queries[2] = {{maximum[0].top, near_total(n) / maximum[0].count, output_dot(n)},
                                  {maximum[1].top, near_total(n + 8) / maximum[1].count, output_dot(n + 8)}};
#pragma unroll
    for (int r = 0; r < 2; ++r)
        if (lane_column() == 0 && lane_row() + 8 * r < work.valid()) {
            work.queries(memory.near_maximum, 1)[n + 8 * r] = queries[r].top;
            work.queries(memory.tie_share, 1)[n + 8 * r] = queries[r].share;
        }

    Pair dy[D / 16][4];
    work.template load<D>(dy, work.queries(memory.dy, D));
    const float gamma = work.factors(arguments.window_factors).gamma;
    float dq[D / 8][4];
    clear(dq);
    for_each_keys([&](auto& scores, const BFloat* keys, const BFloat* values, const auto& visible) {
        float value_dots[2][4];
        clear(value_dots);
        multiply_transposed<D, 16>(value_dots, dy, values, pitch(D));
        for_each_place([&](int j, int e, int r, int column) {
            const NearPair pair = near_pair(scores[j][e], value_dots[j][e], gamma, queries[r]);
            scores[j][e] = visible(r, column) ? pair.score_gradient : 0;
        });
        multiply_step<D>(dq, scores, keys, pitch(D));
    });
    store_gradient(work, dq, score_scale<D>(), false, arguments.inputs.q);
}

/// One block: dk and dv of one chunk of keys through the queries to which they are near. Products are those of
/// near_queries_kernel transposed, of the same terms in the same order: scores have the same bits.
template <int D>
__global__ __launch_bounds__(largest_threads) void near_keys_kernel(BackwardArguments arguments) {
    const ChunkWork<D> work(arguments.heads, arguments.form);
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
    const float gamma = work.factors(arguments.window_factors).gamma;
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
            float gradients[2][4]; // first dy . v
            clear(weights);
            clear(gradients);
            NearQuery queries[2][2]; // the lane's four, on their way while the products are made
            for_each_lane_column([&](int j, int e, int column) {
                const int n = first + query + column;
                queries[j][e] = {maximum(n), tie_share(n), output_dot(n)};
            });
#pragma unroll
            for (int step = 0; step < D; step += 16) {
                Pair left[4];
                load_left(left, k + step, pitch(D));
                multiply_step_transposed<16>(weights, left, q + step, pitch(D));
                load_left(left, v + step, pitch(D));
                multiply_step_transposed<16>(gradients, left, dy + step, pitch(D));
            }
            for_each_place([&](int j, int e, int r, int column) {
                const int key = work.block16 + lane_row() + 8 * r;
                const bool visible =
                    first + query + column < work.shape.length && is_near(work.near, own, query + column, key);
                const NearPair pair =
                    near_pair(near_score<D>(weights[j][e]), gradients[j][e], gamma, queries[j][e % 2]);
                weights[j][e] = visible ? pair.weight : 0;
                gradients[j][e] = visible ? pair.score_gradient : 0;
            });
            multiply_step<D>(dv, weights, dy, pitch(D));
            multiply_step<D>(dk, gradients, q, pitch(D));
        }
    }
    store_gradient(work, dk, score_scale<D>(), false, arguments.inputs.k);
    store_gradient(work, dv, 1, false, arguments.inputs.v);
}

dim3 chunk_blocks(const BackwardArguments& arguments) {
    const Heads& heads = arguments.heads;
    return {static_cast<unsigned>(chunk_count(heads.shape.length, arguments.form.window)),
            static_cast<unsigned>(heads.count)};
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
    for_sizes(arguments.heads.shape, form, [&]<int D, int P>() {
        launch("far_queries", far_queries_kernel<D, P>, chunk_blocks(arguments), 2 * form.window,
               FarTiles<D, P>::bytes(form), stream, arguments);
    });
}

/// As far_queries; with dv twice its FLOP and 4 d bytes a row more, 8 d if it adds to them.
void far_keys(const BackwardArguments& arguments, cudaStream_t stream) {
    const StudentForm& form = arguments.form;
    for_sizes(arguments.heads.shape, form, [&]<int D, int P>() {
        launch("far_keys", far_keys_kernel<D, P>, chunk_blocks(arguments), 2 * form.window, FarTiles<D, P>::bytes(form),
               stream, arguments);
    });
}

/// Two kernels, of queries and of keys. Blocks: chunks x count of 2 w threads; shared memory 4 w (d + 8) and 6 w (d +
/// 8) bf16, 68 and 102 KiB at w = 64, d = 128. They move, a row, 8 d bytes in, the neighbouring chunk's rows not
/// counted, and 4 d and 8 d out; 12 w d FLOP a row each for the terrace, two thirds of it for a sliding window.
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
    feature_map_forward(heads, q_map, PackedRows::queries, memory.q, memory.phi_q, stream);
    feature_map_forward(heads, k_map, PackedRows::keys, memory.keys.k, memory.phi_k, stream);
    scan_states(heads, form, Direction::forward, memory.phi_k, PackedRows::keys, memory.keys.v, nullptr, memory.states,
                memory.sums, stream);
    far_queries(arguments, stream);
    if (near && inputs.q != nullptr) near_gradients(arguments, stream);
    feature_map_backward(heads, form, q_map, window_factors, PackedRows::queries, memory.q, memory.dphi,
                         memory.partials, q_gradients, stream);
    scan_states(heads, form, Direction::backward, memory.phi_q, PackedRows::queries, memory.dy, memory.output_dot,
                memory.states, memory.sums, stream);
    far_keys(arguments, stream);
    feature_map_backward(heads, form, k_map, window_factors, PackedRows::keys, memory.keys.k, memory.dphi,
                         memory.partials, k_gradients, stream);
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
