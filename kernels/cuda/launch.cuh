#pragma once
/// Starts a kernel inside a profiler range of its name and checks that the launch was accepted.
#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <cstddef>
#include <stdexcept>
#include <string>

namespace lolcats::cuda {

inline constexpr int most_block_rows = 65535; ///< the largest y dimension of a grid

/// Throws std::runtime_error naming `what` if `status` is not success.
inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

/// `shared`: bytes of dynamic shared memory. CUDA grants more than 48 KiB only to a kernel that has asked for it.
template <class... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), dim3 blocks, int threads, std::size_t shared,
            cudaStream_t stream, Parameters... arguments) {
    constexpr std::size_t always_allowed = 48 * 1024;
    nvtxRangePushA(name);
    cudaError_t status = cudaSuccess;
    if (shared > always_allowed)
        status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (status == cudaSuccess) {
        cudaLaunchConfig_t config = {};
        config.gridDim = blocks;
        config.blockDim = dim3(static_cast<unsigned>(threads));
        config.dynamicSmemBytes = shared;
        config.stream = stream;
        status = cudaLaunchKernelEx(&config, kernel, arguments...);
    }
    nvtxRangePop();
    if (status != cudaSuccess) (void)cudaGetLastError(); // else it would be blamed on whoever asks next
    check(status, name);
}

} // namespace lolcats::cuda
