#pragma once
/// Checked calls of CUDA and its libraries.
#include "lolcats/error.hpp"

#include <cuda_runtime_api.h>

#include <cstring>

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

} // namespace lolcats

/// Throws an Error that names the place, the call and CUDA's reason.
#define LOLCATS_CHECK_CUDA(call) ::lolcats::check_cuda(call, #call, __FILE__, __LINE__)
