#pragma once
/// Instructions of sm_80 and later that CUDA C++ lacks. Lane l of a warp has row g = l / 4 and pair t = l % 4.
#include <cuda_bf16.h>

namespace lolcats::cuda {

/// Two bf16 numbers in one register, the one of lower index in the lower half.
using Pair = unsigned;

__device__ inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// Four 8 x 8 matrices from shared memory; lanes 8 i .. 8 i + 7 give the addresses of the rows of matrix i. Each lane
/// receives in pairs[i] the elements 2 t and 2 t + 1 of row g of matrix i.
__device__ inline void load_matrices(Pair (&pairs)[4], const __nv_bfloat16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same of the transposed matrices.
__device__ inline void load_matrices_transposed(Pair (&pairs)[4], const __nv_bfloat16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// c[16, 8] += a[16, 16] b[16, 8], bf16 products summed in float. Lane's elements (row, column), pairs along the first
/// index of b and the second of a:
///   a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8);  b: (2t, g), (2t + 8, g);
///   c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ inline void multiply_add(float (&c)[4], const Pair (&a)[4], Pair b0, Pair b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Starts to copy 16 bytes from global to shared memory, zeros if not `valid` (the address must be good all the same).
__device__ inline void copy_16_bytes(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

/// Closes a group of this thread's copies.
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/// Waits until at most `Open` of this thread's groups are still under way.
template <int Open>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" : : "n"(Open) : "memory");
}

/// 2^x to 2 units in the last place; 0 for -infinity.
__device__ inline float exp2_approximate(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

} // namespace lolcats::cuda
