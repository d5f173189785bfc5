#include "kernels/attention_twin.hpp"

#ifdef KOKKOS_ENABLE_CUDA
#include "kernels/cuda/attention.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>
#endif

namespace lolcats::twin {

namespace {

bool allowed = false;

} // namespace

void use_tensor_cores(bool allow) {
    allowed = allow;
}

#ifdef KOKKOS_ENABLE_CUDA

namespace {

static_assert(std::is_same_v<Execution, Kokkos::Cuda>, "arrays of a build for GPUs are on the device");

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

/// Memory of the stream's pool, which keeps what is given back for the next call.
class StreamMemory {
public:
    StreamMemory(std::size_t bytes, cudaStream_t stream) : bytes_(bytes), stream_(stream) {
        keep_pool();
        check(cudaMallocAsync(&data_, bytes, stream), "attention's workspace");
    }
    StreamMemory(const StreamMemory&) = delete;
    StreamMemory& operator=(const StreamMemory&) = delete;
    ~StreamMemory() { cudaFreeAsync(data_, stream_); }

    [[nodiscard]] cuda::Workspace workspace() const { return {data_, bytes_}; }

private:
    static void keep_pool() {
        static const bool once = [] {
            int device = 0;
            cudaMemPool_t pool = nullptr;
            std::uint64_t all = UINT64_MAX;
            check(cudaGetDevice(&device), "cudaGetDevice");
            check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
            check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "cudaMemPoolSetAttribute");
            return true;
        }();
        static_cast<void>(once);
    }

    void* data_ = nullptr;
    std::size_t bytes_;
    cudaStream_t stream_;
};

cuda::StudentParameterPointers pointers(const StudentParameters<float>& parameters) {
    return {parameters.q_map.data(), parameters.k_map.data(), parameters.q_bias.data(), parameters.k_bias.data(),
            parameters.window_factors.data()};
}

cuda::StudentGradientPointers pointers(const StudentGradients<float>& gradients) {
    return {gradients.q_map.data(), gradients.k_map.data(), gradients.q_bias.data(), gradients.k_bias.data(),
            gradients.window_factors.data()};
}

/// A number that a kernel leaves on the device.
class DeviceNumber {
public:
    explicit DeviceNumber(cudaStream_t stream) : memory_(sizeof(double), stream), stream_(stream) {}

    [[nodiscard]] double* data() const { return static_cast<double*>(memory_.workspace().data); }
    /// Waits for the kernels named `what`.
    [[nodiscard]] double value(const char* what) const {
        double number = 0;
        check(cudaMemcpyAsync(&number, data(), sizeof number, cudaMemcpyDeviceToHost, stream_), what);
        check(cudaStreamSynchronize(stream_), what);
        return number;
    }

private:
    StreamMemory memory_;
    cudaStream_t stream_;
};

} // namespace

bool softmax_attention(const AttentionShape& shape, const Matrix<float>& q, const Matrix<float>& k,
                       const Matrix<float>& v, const Matrix<float>& y, const Matrix<float>& log_sum) {
    if (!allowed || !cuda::supports(shape)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const StreamMemory memory(cuda::softmax_attention_workspace(shape), stream);
    cuda::softmax_attention(shape, {q.data(), k.data(), v.data()}, y.data(), log_sum.data(), memory.workspace(),
                            stream);
    return true;
}

bool student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameters<float>& parameters,
                       const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                       const Matrix<float>& normalizer) {
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const StreamMemory memory(cuda::student_attention_workspace(shape, form), stream);
    cuda::student_attention(shape, form, pointers(parameters), {q.data(), k.data(), v.data()}, y.data(),
                            normalizer.data(), nullptr, memory.workspace(), stream);
    return true;
}

bool student_squared_error(const AttentionShape& shape, const StudentForm& form,
                           const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                           const Matrix<float>& v, const Matrix<float>& teacher, float scale, const Matrix<float>& y,
                           const Matrix<float>& normalizer, const Matrix<float>& dy, double& error) {
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const StreamMemory memory(cuda::student_attention_workspace(shape, form), stream);
    const DeviceNumber sum(stream);
    const cuda::SquaredError wanted{teacher.data(), scale, dy.data(), sum.data()};
    cuda::student_attention(shape, form, pointers(parameters), {q.data(), k.data(), v.data()}, y.data(),
                            normalizer.data(), &wanted, memory.workspace(), stream);
    error = sum.value("student_squared_error");
    return true;
}

bool student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameters<float>& parameters, const Matrix<float>& q,
                                const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                                const Matrix<float>& normalizer, const Matrix<float>& dy,
                                const StudentGradients<float>& gradients,
                                const AttentionInputGradients<float>* inputs) {
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const StreamMemory memory(cuda::student_attention_backward_workspace(shape, form), stream);
    cuda::InputGradientPointers wanted{};
    if (inputs != nullptr) wanted = {inputs->q.data(), inputs->k.data(), inputs->v.data()};
    cuda::student_attention_backward(shape, form, pointers(parameters), {q.data(), k.data(), v.data()},
                                     {y.data(), normalizer.data(), dy.data()}, pointers(gradients),
                                     inputs != nullptr ? &wanted : nullptr, memory.workspace(), stream);
    return true;
}

bool attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                             const Matrix<float>& log_sum, const Matrix<float>& normalizer, float scale,
                             const StudentGradients<float>* gradients, double& loss) {
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const StreamMemory memory(cuda::attention_cross_entropy_workspace(shape, form), stream);
    const DeviceNumber sum(stream);
    cuda::StudentGradientPointers wanted{};
    if (gradients != nullptr) wanted = pointers(*gradients);
    cuda::attention_cross_entropy(shape, form, pointers(parameters), q.data(), k.data(),
                                  {log_sum.data(), normalizer.data()}, scale, gradients != nullptr ? &wanted : nullptr,
                                  sum.data(), memory.workspace(), stream);
    loss = sum.value("attention_cross_entropy");
    return true;
}

#endif

} // namespace lolcats::twin
