#include "kernels/cuda/arena.hpp"
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/sizes.cuh"

namespace lolcats::cuda {

namespace {

constexpr int query_tile = 128; ///< queries of a block, 16 a warp
constexpr int key_tile = 64;
constexpr int softmax_threads = query_tile / 16 * warp_size;

struct SoftmaxArguments {
    AttentionShape shape;
    const float* q;
    const BFloat* k; ///< [B H_kv, T, d]
    const BFloat* v; ///< [B H_kv, T, d]
    float* y;
    float* log_sum;
};

template <int D>
__device__ void load_queries(Pair (&q)[D / 16][4], const float* rows, std::size_t stride, int valid) {
#pragma unroll
    for (int step = 0; step < D / 16; ++step)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = lane_row() + i % 2 * 8;
            const int column = step * 16 + lane_column() + i / 2 * 8;
            float2 x = {0, 0};
            if (row < valid) x = *reinterpret_cast<const float2*>(rows + row * stride + column);
            q[step][i] = pack(x.x, x.y);
        }
}

template <int D>
__device__ void store_rows(const SoftmaxArguments& arguments, int index, int first, const OnlineSoftmax& softmax,
                           float (&y)[D / 8][4]) {
    const AttentionShape& shape = arguments.shape;
    float* out = arguments.y + head_offset(shape, shape.heads, index);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float total = row_sum(softmax.total[r]);
        const int n = first + lane_row() + 8 * r;
        if (n >= shape.length) continue;
        float* row = out + static_cast<std::size_t>(n) * shape.heads * D + lane_column();
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
            *reinterpret_cast<float2*>(row + 8 * j) = {y[j][2 * r] / total, y[j][2 * r + 1] / total};
        if (lane_column() == 0)
            arguments.log_sum[static_cast<std::size_t>(index) * shape.length + n] =
                softmax.maximum[r] / log2_e + logf(total);
    }
}

/// One block: 128 queries of a head, a warp 16 of them. Key tiles are copied into two buffers in turn, the next one
/// while this one is used.
template <int D>
__global__ __launch_bounds__(softmax_threads) void softmax_attention_kernel(SoftmaxArguments arguments) {
    const AttentionShape& shape = arguments.shape;
    const int index = static_cast<int>(blockIdx.x);
    // The longest blocks first.
    const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * query_tile;
    const int warp_first = first + warp() * 16;
    const std::size_t kv_rows = static_cast<std::size_t>(kv_index(shape, index)) * shape.length;
    const int keys = min(first + query_tile, shape.length);
    const int tiles = (keys + key_tile - 1) / key_tile;
    constexpr int tile_elements = key_tile * pitch(D);
    BFloat* const shared = shared_memory();
    const auto copy = [&](int tile) {
        BFloat* const buffer = shared + tile % 2 * 2 * tile_elements;
        const std::size_t offset = (kv_rows + static_cast<std::size_t>(tile) * key_tile) * D;
        const int valid = shape.length - tile * key_tile;
        copy_tile<D>(buffer, arguments.k + offset, D, key_tile, valid);
        copy_tile<D>(buffer + tile_elements, arguments.v + offset, D, key_tile, valid);
        commit_copies();
    };

    copy(0);
    Pair q[D / 16][4];
    const std::size_t stride = static_cast<std::size_t>(shape.heads) * D;
    load_queries<D>(q, arguments.q + head_offset(shape, shape.heads, index) + warp_first * stride, stride,
                    shape.length - warp_first);
    const float scale = log2_e / sqrtf(static_cast<float>(D));
    float y[D / 8][4];
    clear(y);
    OnlineSoftmax softmax;
    for (int tile = 0; tile < tiles; ++tile) {
        wait_for_copies<0>();
        __syncthreads();
        if (tile + 1 < tiles) copy(tile + 1);
        const int key = tile * key_tile;
        if (key > warp_first + 15) continue;
        const BFloat* const buffer = shared + tile % 2 * 2 * tile_elements;
        float scores[key_tile / 8][4];
        clear(scores);
        multiply_transposed<D, key_tile>(scores, q, buffer, pitch(D));
        const bool all_visible = key + key_tile <= warp_first + 1;
        for_each_element(scores, [&](int row, int column, float& score) {
            score = all_visible || key + column <= warp_first + row ? score * scale : no_score;
        });
        float rescale[2];
        softmax.update(scores, rescale);
        scale_rows(y, rescale);
#pragma unroll
        for (int step = 0; step < key_tile / 16; ++step) {
            Pair weights[4];
            as_left(weights, scores, step * 16);
            multiply_step<D>(y, weights, buffer + tile_elements + step * 16 * pitch(D), pitch(D));
        }
    }
    store_rows<D>(arguments, index, warp_first, softmax, y);
}

/// Blocks: B H x T / 128 of 256 threads; shared memory 4 x 64 x (d + 8) bf16, 68 KiB at d = 128. Moves q and y once, k
/// and v once a query tile (from L2); 2 T^2 d FLOP a head beside the exponentials.
template <int D>
void launch_softmax_attention(const SoftmaxArguments& arguments, cudaStream_t stream) {
    const AttentionShape& shape = arguments.shape;
    const dim3 blocks(static_cast<unsigned>(shape.batch * shape.heads),
                      static_cast<unsigned>((shape.length + query_tile - 1) / query_tile));
    const std::size_t shared = 4 * key_tile * pitch(D) * sizeof(BFloat);
    launch("softmax_attention", softmax_attention_kernel<D>, blocks, softmax_threads, shared, stream, arguments);
}

} // namespace

bool supports(const AttentionShape& shape) {
    return is_one_of(HeadDims(), shape.head_dim) && shape.batch >= 1 && shape.length >= 1 && shape.kv_heads >= 1 &&
           shape.heads % shape.kv_heads == 0 && shape.batch <= most_block_rows / shape.kv_heads;
}

std::size_t softmax_attention_workspace(const AttentionShape& shape) {
    Arena size;
    PackedKeys(shape, size);
    return size.used();
}

void softmax_attention(const AttentionShape& shape, const AttentionInputs& inputs, float* y, float* log_sum,
                       const Workspace& workspace, cudaStream_t stream) {
    if (!supports(shape)) throw std::invalid_argument("softmax_attention: this shape has no CUDA twin");
    Arena arena(workspace);
    const PackedKeys keys(shape, arena);
    pack_keys(shape, inputs, keys, stream);
    const SoftmaxArguments arguments{shape, inputs.q, keys.k, keys.v, y, log_sum};
    for_head_dim(shape.head_dim, [&]<int D>() { launch_softmax_attention<D>(arguments, stream); });
}

} // namespace lolcats::cuda
