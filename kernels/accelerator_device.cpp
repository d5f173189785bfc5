#include "kernels/accelerator.hpp"

#include "kernels/cuda_check.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <utility>

// Kokkos calls three functions of the CUDA driver, whose library is only where a GPU's driver is installed. A program
// linked to it would not start anywhere else, not even to say so. So they are defined here, and look the driver's own
// up when they are called.
namespace {

template <class Function>
Function* driver_function(const char* name, unsigned version) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableLegacyStream, &result);
    const bool found = status == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return found ? reinterpret_cast<Function*>(function) : nullptr;
}

} // namespace

extern "C" {

CUresult cuCtxGetDevice(CUdevice* device) {
    const auto function = driver_function<decltype(cuCtxGetDevice)>("cuCtxGetDevice", 2000);
    return function == nullptr ? CUDA_ERROR_NOT_INITIALIZED : function(device);
}

CUresult cuCtxPushCurrent(CUcontext context) {
    const auto function = driver_function<decltype(cuCtxPushCurrent)>("cuCtxPushCurrent", 4000);
    return function == nullptr ? CUDA_ERROR_NOT_INITIALIZED : function(context);
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
    const auto function = driver_function<decltype(cuStreamGetCtx)>("cuStreamGetCtx", 9020);
    return function == nullptr ? CUDA_ERROR_NOT_INITIALIZED : function(stream, context);
}

} // extern "C"

namespace lolcats {

namespace {

std::pair<double, double> free_and_total() {
    std::size_t free = 0;
    std::size_t total = 0;
    LOLCATS_CHECK_CUDA(cudaMemGetInfo(&free, &total));
    return {static_cast<double>(free), static_cast<double>(total)};
}

cudaDeviceProp properties_of_current() {
    int device = 0;
    cudaDeviceProp properties{};
    LOLCATS_CHECK_CUDA(cudaGetDevice(&device));
    LOLCATS_CHECK_CUDA(cudaGetDeviceProperties(&properties, device));
    return properties;
}

} // namespace

void prepare_accelerator() {
    // Streams that share a hardware queue wait for each other. There are eight by default, and more streams than that:
    // a receive could stand behind a send that waits for its receiver.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    setenv("NCCL_COMM_BLOCKING", "0", 1); // else its calls would wait for dead ranks after all
}

int accelerator_count() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

const char* missing_accelerator() {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return "no NVIDIA driver is installed";
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    return status == cudaSuccess && count > 0 ? ""
                                              : cudaGetErrorString(status == cudaSuccess ? cudaErrorNoDevice : status);
}

std::string accelerator_name() {
    const cudaDeviceProp properties = properties_of_current();
    return fmt::format("{}, {} multiprocessors, {:.1f} GB", properties.name, properties.multiProcessorCount,
                       static_cast<double>(properties.totalGlobalMem) / 1e9);
}

std::string accelerator_identity() {
    const cudaDeviceProp properties = properties_of_current();
    return {properties.uuid.bytes, sizeof properties.uuid.bytes};
}

double accelerator_memory_in_use() {
    const auto [free, total] = free_and_total();
    return total - free;
}

double accelerator_memory_free() {
    return free_and_total().first;
}

} // namespace lolcats
