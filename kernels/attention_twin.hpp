#pragma once
/// Where attention in float goes on to its tensor-core kernels (kernels/cuda/attention.hpp).
///
/// Each function returns false, with nothing done, unless the build is for GPUs, `use_tensor_cores` allows it and the
/// shape is supported: the portable kernel follows then. Arrays are those of the portable kernel of the same name.
#include "kernels/student_attention.hpp"

namespace lolcats::twin {

/// Whether float attention may round its operands to bf16. False until a program that computes in bf16 says so.
void use_tensor_cores(bool allowed);

#ifdef KOKKOS_ENABLE_CUDA
bool softmax_attention(const AttentionShape& shape, const Matrix<float>& q, const Matrix<float>& k,
                       const Matrix<float>& v, const Matrix<float>& y, const Matrix<float>& log_sum);
bool student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameters<float>& parameters,
                       const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                       const Matrix<float>& normalizer);
bool student_squared_error(const AttentionShape& shape, const StudentForm& form,
                           const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                           const Matrix<float>& v, const Matrix<float>& teacher, float scale, const Matrix<float>& y,
                           const Matrix<float>& normalizer, const Matrix<float>& dy, double& error);
/// inputs: null if gradients of q, k and v are not wanted.
bool student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameters<float>& parameters, const Matrix<float>& q,
                                const Matrix<float>& k, const Matrix<float>& v, const Matrix<float>& y,
                                const Matrix<float>& normalizer, const Matrix<float>& dy,
                                const StudentGradients<float>& gradients, const AttentionInputGradients<float>* inputs);
/// normalizer: empty if only far keys count. gradients: null if not wanted.
bool attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameters<float>& parameters, const Matrix<float>& q, const Matrix<float>& k,
                             const Matrix<float>& log_sum, const Matrix<float>& normalizer, float scale,
                             const StudentGradients<float>* gradients, double& loss);
#endif

/// Other precisions and builds have no such kernels.
template <class... Arguments>
bool softmax_attention(const Arguments&...) {
    return false;
}
template <class... Arguments>
bool student_attention(const Arguments&...) {
    return false;
}
template <class... Arguments>
bool student_squared_error(const Arguments&...) {
    return false;
}
template <class... Arguments>
bool student_attention_backward(const Arguments&...) {
    return false;
}
template <class... Arguments>
bool attention_cross_entropy(const Arguments&...) {
    return false;
}

} // namespace lolcats::twin
