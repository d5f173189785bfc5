#pragma once
/// Device memory for tests of CUDA kernels, the same on a GPU and on the host shim (tests/support/cuda_on_host.hpp).
#include "kernels/cuda/launch.cuh"
#include "lolcats/bfloat16.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#ifdef LOLCATS_CUDA_ON_HOST
/// Not a run on a GPU: the kernels' logic, executed by the processor.
#define CUDA_TEST(name) TEST(CudaKernelsOnHost, name)
#else
#define CUDA_TEST(name) TEST_F(CudaKernels, name)
#endif

namespace lolcats::test {

#ifndef LOLCATS_CUDA_ON_HOST
/// Tests that need a GPU; skipped, with the reason, where there is none.
class CudaKernels : public testing::Test {
protected:
    void SetUp() override {
        int driver = 0;
        if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) GTEST_SKIP() << "no CUDA device: no driver";
        int devices = 0;
        const cudaError_t status = cudaGetDeviceCount(&devices);
        if (status == cudaErrorNoDevice || (status == cudaSuccess && devices == 0))
            GTEST_SKIP() << "no CUDA device: the driver has none";
        ASSERT_EQ(status, cudaSuccess) << "there is a GPU that cannot be used: " << cudaGetErrorString(status);
    }
};
#endif

/// An array on the device.
template <class T>
class DeviceArray {
public:
    explicit DeviceArray(std::size_t count) : count_(count) {
        cuda::check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()), "cudaMalloc");
    }
    explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
        cuda::check(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
    }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    ~DeviceArray() { cudaFree(data_); }

    [[nodiscard]] T* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(T); }

    /// Waits for what was enqueued before. Throws if that failed.
    [[nodiscard]] std::vector<double> values() const {
        std::vector<T> host(count_);
        cuda::check(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
        return {host.begin(), host.end()};
    }

private:
    T* data_ = nullptr;
    std::size_t count_;
};

inline DeviceArray<float> on_device(const std::vector<double>& values) {
    return DeviceArray<float>(std::vector<float>(values.begin(), values.end()));
}

/// An output array full of NaN: an element that the kernel forgets to write fails the comparison.
inline DeviceArray<float> poisoned_on_device(std::size_t count) {
    return DeviceArray<float>(std::vector<float>(count, std::numeric_limits<float>::quiet_NaN()));
}

} // namespace lolcats::test
