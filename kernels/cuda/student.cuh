#pragma once
/// What the forward and backward passes of the student's attention share.
///
/// Sequences are cut into chunks of `window` rows. Both passes have three steps: the feature maps of all rows; a scan
/// over the chunks, which gives each its far state; all chunks in parallel. Between them there are, for the heads:
///     phi_q, phi_k  bf16 [count, T, d']
///     states        bf16 [count, chunks, d', d]  sum of phi_k(k_j) v_j^T over the keys that are far to a whole chunk
///     sums          f32  [count, chunks, d']     sum of phi_k(k_j), of the same keys
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sizes.cuh"

namespace lolcats::cuda {

LOLCATS_FUNCTION constexpr int chunk_count(int length, int window) {
    return (length + window - 1) / window;
}

/// The far state of a chunk covers chunks at least this many back; nearer keys are handled one by one.
LOLCATS_FUNCTION constexpr int state_lag(NearKeys near) {
    return near == NearKeys::none ? 1 : 2;
}

/// Distance in chunks to the one chunk whose keys are far to a query only up to the query's own place in its chunk: 0
/// without near keys, 1 for the sliding window. The terrace has none.
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

/// Whose rows a packed array has: those of the query heads at work, or of all key/value heads of the batch.
enum class PackedRows { queries, keys };

/// The first row of head first + `local` in a packed array of rows of `width` elements.
template <class T>
__device__ inline T* head_rows(const Heads& heads, PackedRows rows, T* packed, int local, int width) {
    const int index = rows == PackedRows::queries ? local : kv_index(heads.shape, heads.first + local);
    return packed + static_cast<std::size_t>(index) * heads.shape.length * width;
}

/// The chunk that a block works on, of one head, and the warp's 16 rows of it.
template <int D>
struct ChunkWork {
    const Heads& heads;
    const AttentionShape& shape;
    const StudentForm& form;
    NearKeys near;
    int w;
    int chunk;
    int local;   ///< the head's place among those at work
    int index;   ///< its number in the batch
    int first;   ///< first row of the chunk
    int block16; ///< the warp's first row, in its chunk

    __device__ ChunkWork(const Heads& heads, const StudentForm& form)
        : heads(heads), shape(heads.shape), form(form), near(form.near), w(form.window),
          chunk(static_cast<int>(blockIdx.x)), local(static_cast<int>(blockIdx.y)), index(heads.first + local),
          first(chunk * w), block16(warp() * 16) {}

    __device__ int chunks() const { return static_cast<int>(gridDim.x); }
    /// Rows of the sequence from the warp's first one on.
    __device__ int valid() const { return shape.length - first - block16; }
    __device__ std::size_t state_index() const { return static_cast<std::size_t>(local) * gridDim.x + blockIdx.x; }
    __device__ Mixing factors(const float* window_factors) const { return mixing(shape, form, window_factors, index); }

    /// The head's rows of arrays with `width` elements a row.
    template <class T>
    __device__ T* queries(T* packed, int width) const {
        return head_rows(heads, PackedRows::queries, packed, local, width);
    }
    __device__ const BFloat* keys(const BFloat* packed) const {
        return head_rows(heads, PackedRows::keys, packed, local, D);
    }

    /// The warp's first row, of the head's.
    template <class T>
    __device__ T* own(T* rows, int width) const {
        return rows + static_cast<std::size_t>(first + block16) * width;
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
        load_rows<Columns>(left, own(rows, Columns), Columns, valid());
    }
};

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
void feature_map_forward(const Heads& heads, const MapPointers& map, PackedRows rows, const BFloat* x, BFloat* phi,
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
                          PackedRows rows, const BFloat* x, const float* dphi, float* partials,
                          const MapGradients& gradients, cudaStream_t stream);

/// In which order a scan takes the chunks.
enum class Direction { forward, backward };

/// For each chunk, states = sum of phi_j value_j^T and sums = sum of weight_j phi_j over the rows j of all chunks that
/// are at least state_lag before it (after it, backward); `weights` null: 1. Chunks with no such rows are left
/// unwritten.
void scan_states(const Heads& heads, const StudentForm& form, Direction direction, const BFloat* phi,
                 PackedRows value_rows, const BFloat* values, const float* weights, BFloat* states, float* sums,
                 cudaStream_t stream);

/// Bytes of a `Memory`, the arrays that are kept between the steps, for `count` heads at work.
template <class Memory>
std::size_t memory_bytes(const AttentionShape& shape, const StudentForm& form, int count) {
    Arena size;
    Memory(shape, form, count, size);
    return size.used();
}

/// How many heads to work on at a time: as many as 2 GiB of memory between the steps allow.
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

/// Features that are computed at a time: a product's result is in registers.
template <int P>
constexpr int feature_slice = P < 128 ? P : 128;

/// Writes a slice of features of the warp's 16 rows, of which `valid` exist, to `out` and the rows after it.
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
