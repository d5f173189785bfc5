#pragma once
/// Executes CUDA kernels on the processor: an aid for tests of their logic where no GPU is, not a run on a GPU.
///
/// g++ compiles the same sources that nvcc does, with tests/support/cuda_on_host/ first among the include directories:
/// its headers stand in for CUDA's and for kernels/cuda/ptx.cuh. Blocks run one after the other. Each thread of a block
/// is a fiber that runs until it has to wait for others, at a barrier or an operation of its whole warp. What this sees
/// and a GPU would not report:
///   - a barrier or warp operation that some threads miss, or meet at another line;
///   - shared memory read before it is written (it starts as NaN), or written beyond what the launch asked for;
///   - more shared memory than asked for by attribute, or than sm_90 has; matrices loaded from misaligned rows;
///   - missing barriers and waits for asynchronous copies, by what they do to results: blocks alternate between running
///     their threads in ascending and descending order, and between copies made at once and as late as allowed.
/// What it cannot see: the compiler's and the hardware's part, timing, limits of registers, alignment of plain loads.
#include "lolcats/bfloat16.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};

extern constinit thread_local dim3 threadIdx;
extern constinit thread_local dim3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;

namespace cuda_on_host {

/// Runs `body` in every thread of every block. Throws std::logic_error for what the comment above lists.
void run(dim3 blocks, dim3 threads, std::size_t shared, const std::function<void()>& body);

/// A barrier of the block, met at this line.
void block_barrier(const char* file, int line);

/// Meets the other lanes of the warp; the last to come calls `combine` with what each lane gave.
void warp_operation(const char* what, void* mine, const std::function<void(void* const (&lanes)[32])>& combine);

/// Asynchronous copies of this thread.
void copy_16_bytes(void* shared, const void* global, bool valid);
void commit_copies();
void wait_for_copies(std::size_t open);

/// Throws std::logic_error unless [at, at + bytes) is shared memory of this launch and `at` is aligned to `bytes`.
void check_shared(const void* at, std::size_t bytes);

/// out[lane] = pick(values of all lanes, lane)
template <class T, class Pick>
T exchange(const char* what, T value, const Pick& pick) {
    struct Slot {
        T in, out;
    } slot{value, value};
    warp_operation(what, &slot, [&](void* const(&lanes)[32]) {
        T values[32];
        for (int i = 0; i < 32; ++i) values[i] = static_cast<Slot*>(lanes[i])->in;
        for (int i = 0; i < 32; ++i) static_cast<Slot*>(lanes[i])->out = pick(values, i);
    });
    return slot.out;
}

} // namespace cuda_on_host

#define __syncthreads() cuda_on_host::block_barrier(__FILE__, __LINE__)

inline void __syncwarp() {
    cuda_on_host::exchange("__syncwarp", 0, [](const int(&)[32], int) { return 0; });
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int distance) {
    return cuda_on_host::exchange("__shfl_xor_sync", value,
                                  [=](const T(&all)[32], int lane) { return all[lane ^ distance]; });
}
inline int __any_sync(unsigned, int value) {
    return cuda_on_host::exchange("__any_sync", value, [](const int(&all)[32], int) {
        int any = 0;
        for (const int each : all) any |= each;
        return any;
    });
}

using std::max;
using std::min;

inline float __uint_as_float(unsigned bits) {
    return std::bit_cast<float>(bits);
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __logf(float x) {
    return std::log(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}

struct __nv_bfloat16 {
    unsigned short bits;
};
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __float2bfloat16(float x) {
    return {lolcats::to_bfloat16(x).bits};
}
inline float __bfloat162float(__nv_bfloat16 x) {
    return lolcats::to_float(lolcats::BFloat16{x.bits});
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16(x), __float2bfloat16(y)};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) {
    return x.bits;
}

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "invalid argument" : "out of memory";
}
inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    *memory = std::malloc(bytes);
    if (*memory != nullptr) std::memset(*memory, 0xff, bytes); // not a number, in bf16 and in float
    return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
    std::free(memory);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

namespace cuda_on_host {
inline constexpr int largest_shared = 227 * 1024; ///< what a block of sm_90 may ask for

cudaError_t allow_shared(const void* kernel, std::size_t bytes);
cudaError_t check_launch(const void* kernel, const cudaLaunchConfig_t& config);
} // namespace cuda_on_host

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = cuda_on_host::largest_shared;
    return cudaSuccess;
}
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
    return cuda_on_host::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<std::size_t>(value));
}
template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               std::type_identity_t<Parameters>... arguments) {
    const cudaError_t status = cuda_on_host::check_launch(reinterpret_cast<const void*>(kernel), *config);
    if (status == cudaSuccess)
        cuda_on_host::run(config->gridDim, config->blockDim, config->dynamicSmemBytes, [&] { kernel(arguments...); });
    return status;
}
