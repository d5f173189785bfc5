#pragma once
/// What the forward and backward passes of the student's attention share.
///
/// Both work chunk by chunk in parallel, a chunk being `window` rows: feature maps of all rows, then the far state that
/// each chunk reads, by a scan over chunks, then the chunks. Between these steps there are, for the heads at work:
///     phi_q, phi_k  bf16 [count, T, d']
///     states        bf16 [count, chunks, d', d]  sum of phi_k(k_j) v_j^T over the keys that are far to a whole chunk
///     state_sums    f32  [count, chunks, d']     sum of phi_k(k_j)
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/launch.cuh"

namespace lolcats::cuda {

LOLCATS_FUNCTION constexpr int chunk_count(int length, int window) {
    return (length + window - 1) / window;
}

/// How many chunks back a query's far state ends: of nearer chunks it looks at each key.
LOLCATS_FUNCTION constexpr int state_lag(NearKeys near) {
    return near == NearKeys::none ? 1 : 2;
}

/// How many chunks back those keys are of which a query sees the ones up to its own place in the chunk as far. There
/// are none for the terrace.
LOLCATS_FUNCTION constexpr int local_far_lag(NearKeys near) {
    return near == NearKeys::none ? 0 : 1;
}
LOLCATS_FUNCTION constexpr bool has_local_far(NearKeys near) {
    return near != NearKeys::terrace;
}

struct Mixing {
    float gamma;
    float lambda;
};

/// The factors of near and far weights of query head `index % H`; window_factors may be null if there are no near keys.
__device__ inline Mixing mixing(const AttentionShape& shape, const StudentForm& form, const float* window_factors,
                                int index) {
    if (form.near == NearKeys::none) return {0, 1};
    const float gamma = 1 / (1 + expf(-window_factors[index % shape.heads]));
    return {gamma, form.affine ? 1 - gamma : 1};
}

/// Whose rows a packed array has: query heads at work, or all key/value heads of the batch.
enum class Rows { queries, keys };

/// The first row of head first + `local` in a packed array of rows of `width` elements.
template <class T>
__device__ inline T* head_rows(const Heads& heads, Rows rows, T* packed, int local, int width) {
    const int index = rows == Rows::queries ? local : kv_index(heads.shape, heads.first + local);
    return packed + static_cast<std::size_t>(index) * heads.shape.length * width;
}

/// All threads start to copy a chunk's state [P, D] to shared memory.
template <int D, int P>
__device__ inline void copy_state(BFloat* tile, const BFloat* states, std::size_t index) {
    copy_tile<D>(tile, states + index * P * D, D, P, P);
}

/// One side's feature map: weights [H, d, f] and bias [H], null unless the kind has one.
struct MapPointers {
    FeatureMapKind kind;
    int feature_dim;
    const float* weights;
    const float* bias;
};

inline MapPointers map_pointers(const StudentForm& form, const float* weights, const float* bias) {
    return {form.map, form.feature_dim, weights, has_bias(form.map) ? bias : nullptr};
}

/// phi [count, T, d'] of the packed rows x.
void feature_map_forward(const Heads& heads, const MapPointers& map, Rows rows, const BFloat* x, BFloat* phi,
                         cudaStream_t stream);

/// Where feature_map_backward adds its gradients, [B H, ...] each. Null: not wanted; without `weights` only `input` is.
struct MapGradients {
    float* weights;        ///< [B H, d f]
    float* bias;           ///< [B H]
    float* window_factors; ///< [B H], from phi . dphi of the queries
    float* input;          ///< [B T, H d]
    bool add_input;        ///< add to `input` what there is, or overwrite it
};

/// Elements of the scratch array of feature_map_backward.
std::size_t feature_map_partials(const Heads& heads, int feature_dim);

/// From dphi [count, T, d'] to the gradients of one side's map, of g and of x.
void feature_map_backward(const Heads& heads, const StudentForm& form, const MapPointers& map, const float* factors,
                          Rows rows, const BFloat* x, const float* dphi, float* partials, const MapGradients& gradients,
                          cudaStream_t stream);

/// In which order a scan meets the chunks.
enum class Direction { forward, backward };

/// For each chunk, states = sum of phi_j value_j^T and sums = sum of weight_j phi_j over the rows j of all chunks that
/// are at least state_lag before it (after it, backward); `weights` null: 1. Chunks with no such rows are left
/// unwritten.
void scan_states(const Heads& heads, const StudentForm& form, Direction direction, const BFloat* phi, Rows value_rows,
                 const BFloat* values, const float* weights, BFloat* states, float* sums, cudaStream_t stream);

/// Calls `body.template operator()<d, d'>()` for the shape's sizes.
template <class Body>
void for_sizes(int head_dim, int features, const Body& body) {
    const auto with_head_dim = [&]<int D>() {
        switch (features) {
        case 32:
            return body.template operator()<D, 32>();
        case 64:
            return body.template operator()<D, 64>();
        case 128:
            return body.template operator()<D, 128>();
        default:
            return body.template operator()<D, 256>();
        }
    };
    switch (head_dim) {
    case 32:
        return with_head_dim.template operator()<32>();
    case 64:
        return with_head_dim.template operator()<64>();
    default:
        return with_head_dim.template operator()<128>();
    }
}

/// Bytes of a `Memory`, what is kept between the steps, for `count` heads at work.
template <class Memory>
std::size_t memory_bytes(const AttentionShape& shape, const StudentForm& form, int count) {
    Arena size;
    Memory(shape, form, count, size);
    return size.used();
}

/// Heads at work at a time: as many as keep what is between the steps within 2 GiB.
template <class Memory>
int heads_at_a_time(const AttentionShape& shape, const StudentForm& form) {
    constexpr std::size_t most = std::size_t{2} << 30;
    const std::size_t fitting = most / (memory_bytes<Memory>(shape, form, 2) - memory_bytes<Memory>(shape, form, 1));
    const std::size_t all = static_cast<std::size_t>(shape.batch) * shape.heads;
    const std::size_t count = fitting < all ? fitting : all;
    return static_cast<int>(count < 1 ? 1 : count > most_block_rows ? most_block_rows : count);
}

/// The workspace of a function that keeps a `Memory`.
template <class Memory>
std::size_t workspace_bytes(const AttentionShape& shape, const StudentForm& form) {
    return memory_bytes<Memory>(shape, form, heads_at_a_time<Memory>(shape, form));
}

/// Features in a product's result at a time.
template <int P>
constexpr int feature_slice = P < 128 ? P : 128;

/// Writes a slice of the warp's 16 rows, those of them before `valid`, to `out`, the first of them.
template <int Columns>
__device__ inline void store_features(const float (&values)[Columns / 8][4], float* out, int row_length, int valid) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = lane_row() + 8 * r;
        if (row >= valid) continue;
        float* const to = out + static_cast<std::size_t>(row) * row_length + lane_column();
#pragma unroll
        for (int j = 0; j < Columns / 8; ++j)
            *reinterpret_cast<float2*>(to + 8 * j) = {values[j][2 * r], values[j][2 * r + 1]};
    }
}

} // namespace lolcats::cuda
