#include "kernels/attention_twin.hpp"

#ifdef KOKKOS_ENABLE_CUDA
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda_check.hpp"
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

/// What is kept from one call to the next: they follow each other on one stream.
struct KeptMemory {
    Vector<char> workspace;
    Vector<double> number; ///< that a kernel leaves for the host

    static KeptMemory& get() {
        static KeptMemory* const kept = [] {
            auto* memory = new KeptMemory;
            Kokkos::push_finalize_hook([memory] { delete memory; });
            return memory;
        }();
        return *kept;
    }
};

cuda::Workspace workspace(std::size_t bytes) {
    return {reserve(KeptMemory::get().workspace, bytes, "attention_workspace"), bytes};
}

double* device_number() {
    return reserve(KeptMemory::get().number, 1, "attention_loss");
}

/// Waits for the kernels.
double read_device_number(cudaStream_t stream) {
    double number = 0;
    LOLCATS_CHECK_CUDA(cudaMemcpyAsync(&number, device_number(), sizeof number, cudaMemcpyDeviceToHost, stream));
    LOLCATS_CHECK_CUDA(cudaStreamSynchronize(stream));
    return number;
}

cuda::AttentionInputs pointers(const AttentionInputs<float>& inputs) {
    return {inputs.q.data(), inputs.k.data(), inputs.v.data()};
}

cuda::StudentParameterPointers pointers(const StudentParameters<float>& parameters) {
    return {parameters.q_map.data(), parameters.k_map.data(), parameters.q_bias.data(), parameters.k_bias.data(),
            parameters.window_factors.data()};
}

cuda::StudentGradientPointers pointers(const StudentGradients<float>& gradients) {
    return {gradients.q_map.data(), gradients.k_map.data(), gradients.q_bias.data(), gradients.k_bias.data(),
            gradients.window_factors.data()};
}

} // namespace

template <>
bool softmax_attention(const AttentionShape& shape, const AttentionInputs<float>& inputs,
                       const AttentionOutputs<float>& outputs) {
    if (!allowed || !cuda::supports(shape)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    cuda::softmax_attention(shape, pointers(inputs), outputs.y.data(), outputs.statistics.data(),
                            workspace(cuda::softmax_attention_workspace(shape)), stream);
    return true;
}

template <>
bool student_attention(const AttentionShape& shape, const Student<float>& student, const AttentionInputs<float>& inputs,
                       const AttentionOutputs<float>& outputs) {
    const auto& [form, parameters] = student;
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    cuda::student_attention(shape, form, pointers(parameters), pointers(inputs), outputs.y.data(),
                            outputs.statistics.data(), nullptr,
                            workspace(cuda::student_attention_workspace(shape, form)), stream);
    return true;
}

template <>
bool student_squared_error(const AttentionShape& shape, const Student<float>& student,
                           const AttentionInputs<float>& inputs, const AttentionOutputs<float>& outputs,
                           const SquaredError<float>& error, double& sum) {
    const auto& [form, parameters] = student;
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    const cuda::SquaredError wanted{error.teacher.data(), error.scale, error.dy.data(), device_number()};
    cuda::student_attention(shape, form, pointers(parameters), pointers(inputs), outputs.y.data(),
                            outputs.statistics.data(), &wanted,
                            workspace(cuda::student_attention_workspace(shape, form)), stream);
    sum = read_device_number(stream);
    return true;
}

template <>
bool student_attention_backward(const AttentionShape& shape, const Student<float>& student,
                                const AttentionInputs<float>& inputs, const AttentionOutputs<float>& outputs,
                                const Matrix<float>& dy, const StudentGradients<float>& gradients,
                                const AttentionInputGradients<float>* input_gradients) {
    const auto& [form, parameters] = student;
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    cuda::InputGradientPointers wanted{};
    if (input_gradients != nullptr)
        wanted = {input_gradients->q.data(), input_gradients->k.data(), input_gradients->v.data()};
    cuda::student_attention_backward(shape, form, pointers(parameters), pointers(inputs),
                                     {outputs.y.data(), outputs.statistics.data(), dy.data()}, pointers(gradients),
                                     input_gradients != nullptr ? &wanted : nullptr,
                                     workspace(cuda::student_attention_backward_workspace(shape, form)), stream);
    return true;
}

template <>
bool attention_cross_entropy(const AttentionShape& shape, const Student<float>& student,
                             const AttentionInputs<float>& inputs, const AttentionEntropy<float>& entropy, float scale,
                             const StudentGradients<float>* gradients, double& loss) {
    const auto& [form, parameters] = student;
    if (!allowed || !cuda::supports(shape, form)) return false;
    const cudaStream_t stream = Execution().cuda_stream();
    cuda::StudentGradientPointers wanted{};
    if (gradients != nullptr) wanted = pointers(*gradients);
    const float* normalizer = entropy.keys == EntropyKeys::all ? entropy.normalizer.data() : nullptr;
    cuda::attention_cross_entropy(shape, form, pointers(parameters), inputs.q.data(), inputs.k.data(),
                                  {entropy.log_sum.data(), normalizer}, scale, gradients != nullptr ? &wanted : nullptr,
                                  device_number(), workspace(cuda::attention_cross_entropy_workspace(shape, form)),
                                  stream);
    loss = read_device_number(stream);
    return true;
}

#endif

} // namespace lolcats::twin
