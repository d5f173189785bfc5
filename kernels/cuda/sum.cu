#include "kernels/cuda/sum.cuh"

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/launch.cuh"

namespace lolcats::cuda {

namespace {

constexpr int sum_threads = 512;

__global__ __launch_bounds__(sum_threads) void sum_parts_kernel(const float* parts, std::size_t count, double* sum) {
    double* const sums = reinterpret_cast<double*>(shared_memory());
    double own = 0;
    for (std::size_t i = threadIdx.x; i < count; i += sum_threads) own += static_cast<double>(parts[i]);
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned half = sum_threads / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *sum = sums[0];
}

} // namespace

void sum_parts(const float* parts, std::size_t count, double* sum, cudaStream_t stream) {
    launch("sum_parts", sum_parts_kernel, dim3(1), sum_threads, sum_threads * sizeof(double), stream, parts, count,
           sum);
}

} // namespace lolcats::cuda
