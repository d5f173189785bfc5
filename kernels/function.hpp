#pragma once
/// LOLCATS_FUNCTION marks what runs on the host and on a device, in sources that nvcc compiles with and without Kokkos;
/// LOLCATS_INLINE_FUNCTION what has to be inlined besides: for constants to reach it, which also settles its last bits.

#ifdef __CUDACC__
#define LOLCATS_FUNCTION __host__ __device__
#define LOLCATS_INLINE_FUNCTION __host__ __device__ __forceinline__
#else
#define LOLCATS_FUNCTION
#define LOLCATS_INLINE_FUNCTION inline __attribute__((always_inline))
#endif
