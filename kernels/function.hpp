#pragma once
/// LOLCATS_FUNCTION marks what runs on the host and on a device, in sources that nvcc compiles with and without Kokkos;
/// LOLCATS_INLINE_FUNCTION what has to be inlined besides: for constants to reach it, which also settles its last bits;
/// LOLCATS_OUTLINED_FUNCTION what nvcc must not inline: it takes minutes over a kernel with dozens of copies.

#ifdef __CUDACC__
#define LOLCATS_FUNCTION __host__ __device__
#define LOLCATS_INLINE_FUNCTION __host__ __device__ __forceinline__
#define LOLCATS_OUTLINED_FUNCTION __host__ __device__ __noinline__
#else
#define LOLCATS_FUNCTION
#define LOLCATS_INLINE_FUNCTION inline __attribute__((always_inline))
#define LOLCATS_OUTLINED_FUNCTION inline
#endif
