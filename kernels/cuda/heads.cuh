#pragma once
/// Heads of a batch, numbered sequence * H + head, and their rows packed as bf16.
#include "kernels/cuda/arena.hpp"
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/fragments.cuh"

namespace lolcats::cuda {

/// The heads that a kernel works on: `first` .. `first + count - 1` of a batch. Arrays made for them alone have `count`
/// heads.
struct Heads {
    AttentionShape shape;
    int first;
    int count;
};

/// Which of the packed key/value heads a query head reads.
__device__ inline int kv_index(const AttentionShape& shape, int index) {
    return index / shape.heads * shape.kv_heads + index % shape.heads / shape.group();
}

/// Where a head's first row starts in an array of [B T, heads d]; its rows are heads * d elements apart.
__device__ inline std::size_t head_offset(const AttentionShape& shape, int heads, int index) {
    const auto row = static_cast<std::size_t>(index / heads) * shape.length;
    return (row * heads + index % heads) * shape.head_dim;
}

/// packed[count, T, d] = heads first .. first + count - 1 of rows[B T, heads d], rounded to bf16.
/// Blocks: (T d / 1024) x count of 256 threads. Moves 6 bytes an element.
void pack_heads(const AttentionShape& shape, int heads, int first, int count, const float* rows, BFloat* packed,
                cudaStream_t stream);

/// Keys and values packed by head.
struct PackedKeys {
    BFloat* k;
    BFloat* v;

    PackedKeys(const AttentionShape& shape, Arena& arena)
        : k(arena.take<BFloat>(elements(shape))), v(arena.take<BFloat>(elements(shape))) {}

    static std::size_t elements(const AttentionShape& shape) {
        return static_cast<std::size_t>(shape.batch) * shape.length * shape.kv_heads * shape.head_dim;
    }
};

/// Packs inputs.k and inputs.v.
void pack_keys(const AttentionShape& shape, const AttentionInputs& inputs, const PackedKeys& keys, cudaStream_t stream);

} // namespace lolcats::cuda
