#pragma once
/// Where attention in float goes on to its tensor-core kernels (kernels/cuda/attention.hpp).
///
/// Each function returns false, with nothing done, unless the build is for GPUs, `use_tensor_cores` allows it, the
/// arrays are float and the shape is supported: the portable kernel follows then. Arrays are those of the portable
/// kernel of the same name.
#include "kernels/attention_arrays.hpp"

#include <type_traits>

namespace lolcats::twin {

/// Whether float attention may round its operands to bf16. False until a program that computes in bf16 says so.
void use_tensor_cores(bool allowed);

template <class Real>
bool softmax_attention(const AttentionShape& /*shape*/, const AttentionInputs<Real>& /*inputs*/,
                       const AttentionOutputs<Real>& /*outputs*/) {
    return false;
}

template <class Real>
bool student_attention(const AttentionShape& /*shape*/, const Student<Real>& /*student*/,
                       const AttentionInputs<Real>& /*inputs*/, const AttentionOutputs<Real>& /*outputs*/) {
    return false;
}

/// sum: of the squares.
template <class Real>
bool student_squared_error(const AttentionShape& /*shape*/, const Student<Real>& /*student*/,
                           const AttentionInputs<Real>& /*inputs*/, const AttentionOutputs<Real>& /*outputs*/,
                           const SquaredError<Real>& /*error*/, double& /*sum*/) {
    return false;
}

/// input_gradients: null if they are not wanted.
template <class Real>
bool student_attention_backward(const AttentionShape& /*shape*/, const Student<Real>& /*student*/,
                                const AttentionInputs<Real>& /*inputs*/, const AttentionOutputs<Real>& /*outputs*/,
                                const Matrix<Real>& /*dy*/, const StudentGradients<Real>& /*gradients*/,
                                const AttentionInputGradients<std::type_identity_t<Real>>* /*input_gradients*/) {
    return false;
}

/// gradients: null if not wanted.
template <class Real>
bool attention_cross_entropy(const AttentionShape& /*shape*/, const Student<Real>& /*student*/,
                             const AttentionInputs<Real>& /*inputs*/, const AttentionEntropy<Real>& /*entropy*/,
                             Real /*scale*/, const StudentGradients<std::type_identity_t<Real>>* /*gradients*/,
                             double& /*loss*/) {
    return false;
}

#ifdef KOKKOS_ENABLE_CUDA
template <>
bool softmax_attention(const AttentionShape& shape, const AttentionInputs<float>& inputs,
                       const AttentionOutputs<float>& outputs);
template <>
bool student_attention(const AttentionShape& shape, const Student<float>& student, const AttentionInputs<float>& inputs,
                       const AttentionOutputs<float>& outputs);
template <>
bool student_squared_error(const AttentionShape& shape, const Student<float>& student,
                           const AttentionInputs<float>& inputs, const AttentionOutputs<float>& outputs,
                           const SquaredError<float>& error, double& sum);
template <>
bool student_attention_backward(const AttentionShape& shape, const Student<float>& student,
                                const AttentionInputs<float>& inputs, const AttentionOutputs<float>& outputs,
                                const Matrix<float>& dy, const StudentGradients<float>& gradients,
                                const AttentionInputGradients<float>* input_gradients);
template <>
bool attention_cross_entropy(const AttentionShape& shape, const Student<float>& student,
                             const AttentionInputs<float>& inputs, const AttentionEntropy<float>& entropy, float scale,
                             const StudentGradients<float>* gradients, double& loss);
#endif

} // namespace lolcats::twin
