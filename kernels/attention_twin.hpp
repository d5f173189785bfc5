#pragma once
/// Where attention in float goes on to its tensor-core kernels (kernels/cuda/attention.hpp).
///
/// Each function returns false, with nothing done, unless the build is for GPUs, `use_tensor_cores` allows it, the
/// arrays are float and the shape is supported: the portable kernel follows then. Arrays are those of the portable
/// kernel of the same name.
#include "kernels/student_attention.hpp"

#include <type_traits>

namespace lolcats::twin {

/// Whether float attention may round its operands to bf16. False until a program that computes in bf16 says so.
void use_tensor_cores(bool allowed);

template <class Real>
bool softmax_attention(const AttentionShape& /*shape*/, const Matrix<Real>& /*q*/, const Matrix<Real>& /*k*/,
                       const Matrix<Real>& /*v*/, const Matrix<Real>& /*y*/, const Matrix<Real>& /*log_sum*/) {
    return false;
}

template <class Real>
bool student_attention(const AttentionShape& /*shape*/, const StudentForm& /*form*/,
                       const StudentParameters<Real>& /*parameters*/, const Matrix<Real>& /*q*/,
                       const Matrix<Real>& /*k*/, const Matrix<Real>& /*v*/, const Matrix<Real>& /*y*/,
                       const Matrix<Real>& /*normalizer*/) {
    return false;
}

template <class Real>
bool student_squared_error(const AttentionShape& /*shape*/, const StudentForm& /*form*/,
                           const StudentParameters<Real>& /*parameters*/, const Matrix<Real>& /*q*/,
                           const Matrix<Real>& /*k*/, const Matrix<Real>& /*v*/, const Matrix<Real>& /*teacher*/,
                           Real /*scale*/, const Matrix<Real>& /*y*/, const Matrix<Real>& /*normalizer*/,
                           const Matrix<Real>& /*dy*/, double& /*error*/) {
    return false;
}

/// inputs: null if gradients of q, k and v are not wanted.
template <class Real>
bool student_attention_backward(const AttentionShape& /*shape*/, const StudentForm& /*form*/,
                                const StudentParameters<Real>& /*parameters*/, const Matrix<Real>& /*q*/,
                                const Matrix<Real>& /*k*/, const Matrix<Real>& /*v*/, const Matrix<Real>& /*y*/,
                                const Matrix<Real>& /*normalizer*/, const Matrix<Real>& /*dy*/,
                                const StudentGradients<Real>& /*gradients*/,
                                const AttentionInputGradients<std::type_identity_t<Real>>* /*inputs*/) {
    return false;
}

/// normalizer: empty if only far keys count. gradients: null if not wanted.
template <class Real>
bool attention_cross_entropy(const AttentionShape& /*shape*/, const StudentForm& /*form*/,
                             const StudentParameters<Real>& /*parameters*/, const Matrix<Real>& /*q*/,
                             const Matrix<Real>& /*k*/, const Matrix<Real>& /*log_sum*/,
                             const Matrix<Real>& /*normalizer*/, Real /*scale*/,
                             const StudentGradients<std::type_identity_t<Real>>* /*gradients*/, double& /*loss*/) {
    return false;
}

#ifdef KOKKOS_ENABLE_CUDA
template <>
bool softmax_attention(const AttentionShape& shape, const Matrix<float>& q, const Matrix<float>& k,
                       const Matrix<float>& v, const Matrix<float>& y, const Matrix<float>& log_sum);
template <>
bool student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameters<float>& parameters,
                       const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                       const Matrix<float>& normalizer);
template <>
bool student_squared_error(const AttentionShape& shape, const StudentForm& form,
                           const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                           const Matrix<float>& v, const Matrix<float>& teacher, float scale, const Matrix<float>& y,
                           const Matrix<float>& normalizer, const Matrix<float>& dy, double& error);
template <>
bool student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameters<float>& parameters, const Matrix<float>& q,
                                const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                                const Matrix<float>& normalizer, const Matrix<float>& dy,
                                const StudentGradients<float>& gradients, const AttentionInputGradients<float>* inputs);
template <>
bool attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                             const Matrix<float>& log_sum, const Matrix<float>& normalizer, float scale,
                             const StudentGradients<float>* gradients, double& loss);
#endif

} // namespace lolcats::twin
