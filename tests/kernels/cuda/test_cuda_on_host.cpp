/// The host shim itself: that it reports what it says it reports.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/launch.cuh"

#include <gtest/gtest.h>

#include <vector>

#ifdef LOLCATS_CUDA_ON_HOST

namespace lolcats::test {
namespace {

constexpr int threads = 64;
constexpr std::size_t shared_bytes = 4 * threads * sizeof(float);

float* shared_floats() {
    return reinterpret_cast<float*>(cuda::shared_memory());
}

void missed_barrier_kernel() {
    if (threadIdx.x < threads / 2) __syncthreads();
}

void two_barriers_kernel() {
    if (threadIdx.x < threads / 2)
        __syncthreads();
    else
        __syncthreads();
}

void missed_shuffle_kernel() {
    if (threadIdx.x % 2 == 0) cuda::row_sum(1);
}

void write_beyond_kernel() {
    shared_floats()[4 * threads + threadIdx.x] = 1;
}

/// Each thread reads what its neighbours wrote, with or without a barrier before.
void neighbours_kernel(bool barrier, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    shared_floats()[i] = static_cast<float>(i);
    if (barrier) __syncthreads();
    out[blockIdx.x * threads + i] = shared_floats()[(i + 1) % threads] + shared_floats()[(i + threads - 1) % threads];
}

void copy_kernel(bool wait, const float* from, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    cuda::copy_16_bytes(shared_floats() + 4 * i, from + 4 * i, true);
    cuda::commit_copies();
    if (wait) cuda::wait_for_copies<0>();
    out[blockIdx.x * threads + i] = shared_floats()[4 * i];
}

template <class... Arguments>
void launch(void (*kernel)(Arguments...), int blocks, Arguments... arguments) {
    cuda::launch("kernel", kernel, dim3(blocks), threads, shared_bytes, nullptr, arguments...);
}

template <class... Arguments>
std::string error_of(void (*kernel)(Arguments...)) {
    try {
        launch(kernel, 1);
    } catch (const std::logic_error& error) {
        return error.what();
    }
    return "no error";
}

TEST(CudaOnHost, ReportsBarriersThatSomeThreadsMiss) {
    EXPECT_NE(error_of(missed_barrier_kernel).find("never come"), std::string::npos) << error_of(missed_barrier_kernel);
    EXPECT_NE(error_of(two_barriers_kernel).find("must meet"), std::string::npos) << error_of(two_barriers_kernel);
    EXPECT_NE(error_of(missed_shuffle_kernel).find("never come"), std::string::npos) << error_of(missed_shuffle_kernel);
}

TEST(CudaOnHost, ReportsWritesBeyondSharedMemory) {
    EXPECT_NE(error_of(write_beyond_kernel).find("beyond"), std::string::npos) << error_of(write_beyond_kernel);
}

TEST(CudaOnHost, ShowsMissingBarriers) {
    for (const bool barrier : {true, false}) {
        std::vector<float> out(4 * threads);
        launch(neighbours_kernel, 4, barrier, out.data());
        int wrong = 0;
        for (int i = 0; i < 4 * threads; ++i) {
            const int expected = (i + 1) % threads + (i + threads - 1) % threads;
            wrong += out[i] == static_cast<float>(expected) ? 0 : 1;
        }
        EXPECT_EQ(wrong > 0, !barrier);
    }
}

TEST(CudaOnHost, ShowsMissingWaitsForCopies) {
    alignas(16) float from[4 * threads];
    for (int i = 0; i < 4 * threads; ++i) from[i] = static_cast<float>(i);
    for (const bool wait : {true, false}) {
        std::vector<float> out(4 * threads);
        launch(copy_kernel, 4, wait, static_cast<const float*>(from), out.data());
        int wrong = 0;
        for (int i = 0; i < 4 * threads; ++i) wrong += out[i] == static_cast<float>(i % threads * 4) ? 0 : 1;
        EXPECT_EQ(wrong > 0, !wait);
    }
}

TEST(CudaOnHost, RefusesLaunchesThatAGpuWouldRefuse) {
    EXPECT_THROW(cuda::launch("large", missed_barrier_kernel, dim3(1), threads, 228 * 1024, nullptr),
                 std::runtime_error);
    EXPECT_THROW(cuda::launch("wide", missed_barrier_kernel, dim3(1), 2048, 0, nullptr), std::runtime_error);
    EXPECT_THROW(cuda::launch("empty", missed_barrier_kernel, dim3(0), threads, 0, nullptr), std::runtime_error);
}

} // namespace
} // namespace lolcats::test

#endif
