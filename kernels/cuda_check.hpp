#pragma once
/// Checked calls of CUDA, and owners of what it and its libraries make.
#include "lolcats/error.hpp"

#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <type_traits>

namespace lolcats {

/// The last component of a path, such as __FILE__.
inline const char* file_name(const char* path) {
    const char* slash = std::strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
    if (status != cudaSuccess)
        fail("{}:{}: {} failed: {} ({}); see the driver's log (dmesg) if it happens again", file_name(file), line, call,
             cudaGetErrorString(status), cudaGetErrorName(status));
}

template <auto Destroy>
struct HandleDestroyer {
    template <class T>
    void operator()(T* handle) const {
        Destroy(handle);
    }
};

/// Owns a handle that `Destroy` gives back.
template <class Handle, auto Destroy>
using HandleOwner = std::unique_ptr<std::remove_pointer_t<Handle>, HandleDestroyer<Destroy>>;
using CudaEvent = HandleOwner<cudaEvent_t, cudaEventDestroy>;
using CudaStream = HandleOwner<cudaStream_t, cudaStreamDestroy>;

} // namespace lolcats

/// Throws an Error that names the place, the call and CUDA's reason.
#define LOLCATS_CHECK_CUDA(call) ::lolcats::check_cuda(call, #call, __FILE__, __LINE__)
