#include "kernels/cuda/heads.cuh"

#include "kernels/cuda/launch.cuh"

namespace lolcats::cuda {

namespace {

constexpr int pack_threads = 256;

__global__ void pack_heads_kernel(AttentionShape shape, int heads, int first, const float* rows, BFloat* packed) {
    const int quads = shape.head_dim / 4;
    const std::size_t i = static_cast<std::size_t>(blockIdx.x) * pack_threads + threadIdx.x;
    if (i >= static_cast<std::size_t>(shape.length) * quads) return;
    const std::size_t from = head_offset(shape, heads, first + static_cast<int>(blockIdx.y)) +
                             i / quads * heads * shape.head_dim + i % quads * 4;
    const float4 x = *reinterpret_cast<const float4*>(rows + from);
    const std::size_t to = (static_cast<std::size_t>(blockIdx.y) * shape.length * quads + i) * 4;
    Pair* out = reinterpret_cast<Pair*>(packed + to);
    out[0] = pack(x.x, x.y);
    out[1] = pack(x.z, x.w);
}

} // namespace

void pack_heads(const AttentionShape& shape, int heads, int first, int count, const float* rows, BFloat* packed,
                cudaStream_t stream) {
    const std::size_t quads = static_cast<std::size_t>(shape.length) * shape.head_dim / 4;
    const auto blocks = static_cast<unsigned>((quads + pack_threads - 1) / pack_threads);
    launch("pack_heads", pack_heads_kernel, dim3(blocks, static_cast<unsigned>(count)), pack_threads, 0, stream, shape,
           heads, first, rows, packed);
}

void pack_keys(const AttentionShape& shape, const AttentionInputs& inputs, const PackedKeys& keys,
               cudaStream_t stream) {
    const int count = shape.batch * shape.kv_heads;
    pack_heads(shape, shape.kv_heads, 0, count, inputs.k, keys.k, stream);
    pack_heads(shape, shape.kv_heads, 0, count, inputs.v, keys.v, stream);
}

} // namespace lolcats::cuda
