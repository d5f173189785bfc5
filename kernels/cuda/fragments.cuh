#pragma once
/// Products of small bf16 matrices by one warp: the operands' fragments and how they are read from memory.
///
/// Matrices in shared memory are row-major with `pitch(columns)` elements a row: 16 bytes more than the columns need,
/// so that the eight rows that one 8 x 8 load touches lie in different banks. Lane l has row g = l / 4 and pair t = l
/// % 4.
#include "kernels/attention_form.hpp"
#include "kernels/cuda/ptx.cuh"

#include <cuda_runtime.h>

#include <cstddef>

namespace lolcats::cuda {

using BFloat = __nv_bfloat16;

constexpr int warp_size = 32;

LOLCATS_FUNCTION constexpr int pitch(int columns) {
    return columns + 8;
}

__device__ inline int lane() {
    return static_cast<int>(threadIdx.x) % warp_size;
}
__device__ inline int warp() {
    return static_cast<int>(threadIdx.x) / warp_size;
}
/// g, and the column 2 t of a lane's first pair.
__device__ inline int lane_row() {
    return lane() / 4;
}
__device__ inline int lane_column() {
    return lane() % 4 * 2;
}

/// Calls `body(j, e, r, column)` for the lane's elements [j][e] of a 16 x 16 result; they are in row g + 8 r.
template <class Body>
__device__ void for_each_place(const Body& body) {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) body(j, e, e / 2, j * 8 + lane_column() + e % 2);
}

/// Calls `body(j, e, column)` for the columns of a 16 x 16 result of which the lane has elements.
template <class Body>
__device__ void for_each_lane_column(const Body& body) {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) body(j, e, j * 8 + lane_column() + e);
}

__device__ inline Pair pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return static_cast<Pair>(__bfloat16_as_ushort(pair.x)) | static_cast<Pair>(__bfloat16_as_ushort(pair.y)) << 16;
}
__device__ inline float low(Pair pair) {
    return __uint_as_float(pair << 16);
}
__device__ inline float high(Pair pair) {
    return __uint_as_float(pair & 0xffff0000U);
}

/// a: 16 x 16 at `matrix`, anywhere in memory; rows from `valid` on are zeros.
__device__ inline void load_rows(Pair (&a)[4], const BFloat* matrix, int row_length, int valid) {
    const BFloat* first = matrix + static_cast<std::size_t>(lane_row()) * row_length + lane_column();
    const BFloat* second = first + static_cast<std::size_t>(8) * row_length;
    const auto pair = [](const BFloat* at) { return *reinterpret_cast<const Pair*>(at); };
    const bool has_first = lane_row() < valid;
    const bool has_second = lane_row() + 8 < valid;
    a[0] = has_first ? pair(first) : 0;
    a[1] = has_second ? pair(second) : 0;
    a[2] = has_first ? pair(first + 8) : 0;
    a[3] = has_second ? pair(second + 8) : 0;
}

/// a: 16 x Columns at `matrix`, rows from `valid` on zero.
template <int Columns>
__device__ inline void load_rows(Pair (&a)[Columns / 16][4], const BFloat* matrix, int row_length, int valid) {
#pragma unroll
    for (int step = 0; step < Columns / 16; ++step) load_rows(a[step], matrix + step * 16, row_length, valid);
}

/// a: 16 x 16 of a row-major matrix in shared memory.
__device__ inline void load_left(Pair (&a)[4], const BFloat* matrix, int row_length) {
    load_matrices(a, matrix + lane() % 16 * row_length + lane() / 16 * 8);
}

/// a: the transpose of the 16 x 16 at `matrix`.
__device__ inline void load_left_transposed(Pair (&a)[4], const BFloat* matrix, int row_length) {
    const int i = lane() / 8;
    load_matrices_transposed(a, matrix + (lane() % 8 + i / 2 * 8) * row_length + i % 2 * 8);
}

/// b: two 16 x 8 operands, columns 0-7 in b[0], b[1] and 8-15 in b[2], b[3], from the 16 x 16 at `matrix`.
__device__ inline void load_right(Pair (&b)[4], const BFloat* matrix, int row_length) {
    const int i = lane() / 8;
    load_matrices_transposed(b, matrix + (lane() % 8 + i % 2 * 8) * row_length + i / 2 * 8);
}

/// b: the same of the transpose of the 16 x 16 at `matrix`.
__device__ inline void load_right_transposed(Pair (&b)[4], const BFloat* matrix, int row_length) {
    const int i = lane() / 8;
    load_matrices(b, matrix + (lane() % 8 + i / 2 * 8) * row_length + i % 2 * 8);
}

/// The result of a product, 16 columns of it at `first`, as the left operand of another.
template <int Tiles>
__device__ inline void as_left(Pair (&a)[4], const float (&c)[Tiles][4], int first) {
    const float(&left)[4] = c[first / 8];
    const float(&right)[4] = c[first / 8 + 1];
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}

/// c[16, Columns] += a[16, 16] B[16, Columns], B at `right` in shared memory.
template <int Columns>
__device__ inline void multiply_step(float (&c)[Columns / 8][4], const Pair (&a)[4], const BFloat* right,
                                     int row_length) {
#pragma unroll
    for (int j = 0; j < Columns / 16; ++j) {
        Pair b[4];
        load_right(b, right + j * 16, row_length);
        multiply_add(c[2 * j], a, b[0], b[1]);
        multiply_add(c[2 * j + 1], a, b[2], b[3]);
    }
}

/// The same with the result of another product, rounded to bf16, for a.
template <int Columns>
__device__ inline void multiply_step(float (&c)[Columns / 8][4], const float (&a)[2][4], const BFloat* right,
                                     int row_length) {
    Pair left[4];
    as_left(left, a, 0);
    multiply_step<Columns>(c, left, right, row_length);
}

/// c[16, Columns] += a[16, 16] B^T for B[Columns, 16] at `right` in shared memory.
template <int Columns>
__device__ inline void multiply_step_transposed(float (&c)[Columns / 8][4], const Pair (&a)[4], const BFloat* right,
                                                int row_length) {
#pragma unroll
    for (int j = 0; j < Columns / 16; ++j) {
        Pair b[4];
        load_right_transposed(b, right + j * 16 * row_length, row_length);
        multiply_add(c[2 * j], a, b[0], b[1]);
        multiply_add(c[2 * j + 1], a, b[2], b[3]);
    }
}

/// c[16, Columns] += A[16, Inner] B[Inner, Columns]
template <int Inner, int Columns>
__device__ inline void multiply(float (&c)[Columns / 8][4], const Pair (&a)[Inner / 16][4], const BFloat* right,
                                int row_length) {
#pragma unroll
    for (int step = 0; step < Inner / 16; ++step)
        multiply_step<Columns>(c, a[step], right + step * 16 * row_length, row_length);
}

/// c[16, Columns] += A[16, Inner] B^T for B[Columns, Inner]
template <int Inner, int Columns>
__device__ inline void multiply_transposed(float (&c)[Columns / 8][4], const Pair (&a)[Inner / 16][4],
                                           const BFloat* right, int row_length) {
#pragma unroll
    for (int step = 0; step < Inner / 16; ++step)
        multiply_step_transposed<Columns>(c, a[step], right + step * 16, row_length);
}

template <int Tiles>
__device__ inline void clear(float (&c)[Tiles][4]) {
#pragma unroll
    for (int j = 0; j < Tiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) c[j][e] = 0;
}

/// Calls `body(row, column, value)` for each of the lane's elements of a 16 x 8 Tiles result.
template <int Tiles, class Body>
__device__ inline void for_each_element(float (&c)[Tiles][4], const Body& body) {
#pragma unroll
    for (int j = 0; j < Tiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) body(lane_row() + e / 2 * 8, j * 8 + lane_column() + e % 2, c[j][e]);
}

/// Sum and maximum over the four lanes that share a row.
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffU, x, 1);
    return x + __shfl_xor_sync(0xffffffffU, x, 2);
}
__device__ inline float row_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 2));
}

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
    return x;
}

/// All threads of the block start to copy a [rows, Columns] matrix with `row_length` elements a row to shared memory;
/// rows from `valid` on become zeros.
template <int Columns>
__device__ inline void copy_tile(BFloat* tile, const BFloat* from, std::size_t row_length, int rows, int valid) {
    constexpr int pieces = Columns / 8;
    for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += static_cast<int>(blockDim.x)) {
        const int row = i / pieces;
        const int column = i % pieces * 8;
        const bool present = row < valid;
        copy_16_bytes(tile + row * pitch(Columns) + column, from + (present ? row * row_length + column : 0), present);
    }
}

/// All copies of all threads of the block have arrived.
__device__ inline void wait_for_copies_of_block() {
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
}

/// The block's dynamic shared memory.
__device__ inline BFloat* shared_memory() {
    extern __shared__ __align__(128) unsigned char lolcats_shared_memory[];
    return reinterpret_cast<BFloat*>(lolcats_shared_memory);
}

} // namespace lolcats::cuda
