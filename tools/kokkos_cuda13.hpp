#pragma once
/// Lets Kokkos below 4.7.01 compile with CUDA 13, which changed the arguments of three functions that Kokkos calls.
///
/// Included by force (-include) in front of every source of Kokkos itself and of what uses it: Kokkos' own headers make
/// the calls. Each overload takes the arguments of CUDA 12 and passes them on in CUDA 13's form.
#include <cuda_runtime_api.h>

#if CUDART_VERSION >= 13000

inline cudaMemLocation lolcats_memory_location(int device) {
    cudaMemLocation location{};
    location.type = device == cudaCpuDeviceId ? cudaMemLocationTypeHost : cudaMemLocationTypeDevice;
    location.id = device == cudaCpuDeviceId ? 0 : device;
    return location;
}

inline cudaError_t cudaMemAdvise(const void* memory, size_t bytes, cudaMemoryAdvise advice, int device) {
    return cudaMemAdvise(memory, bytes, advice, lolcats_memory_location(device));
}

inline cudaError_t cudaMemPrefetchAsync(const void* memory, size_t bytes, int device, cudaStream_t stream = nullptr) {
    return cudaMemPrefetchAsync(memory, bytes, lolcats_memory_location(device), 0, stream);
}

inline cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                            size_t count) {
    return cudaGraphAddDependencies(graph, from, to, nullptr, count);
}

#endif
