#pragma once
/// The student's attention: softmax over near keys, learned linear attention over far ones (paper equation 6).
///
/// For query n with near keys S(n) and far keys R(n), s_i = q_n . k_i / sqrt(d), c_n = max over S(n) of s_i, gamma =
/// sigmoid(g) and lambda = 1 (or 1 - gamma):
///
///     weight_i = gamma exp(s_i - c_n)              for i in S(n)
///     weight_j = lambda phi_q(q_n) . phi_k(k_j)    for j in R(n)
///     y_n = sum weight v / sum weight
///
/// Sequences are cut into chunks of `window` keys. Keys two or more chunks back are always far and enter through a
/// state sum phi_k(k_j) v_j^T, so time is O(T (w d + d' d)) and memory O(d' d) a head; nothing is ever T x T.
#include "kernels/attention_arrays.hpp"

namespace lolcats {

/// Writes y and the normalizer, the sum of the weights of each query.
template <class Real>
void student_attention(const AttentionShape& shape, const Student<Real>& student, const AttentionInputs<Real>& inputs,
                       const AttentionOutputs<Real>& outputs);

/// Adds to `gradients` those of a loss whose gradient with respect to y is dy: [B T, H d].
template <class Real>
void student_attention_backward(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients);

/// The same, and overwrites `input_gradients`; that of q and k has the part through the maximum c_n.
/// Without arrays in `gradients` the parameters are frozen.
template <class Real>
void student_attention_backward(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients,
                                const AttentionInputGradients<Real>& input_gradients);

/// out[B T, H_kv d]: the sum over the query heads that share a key/value head of per_head[B T, H d].
template <class Real>
void sum_head_groups(const AttentionShape& shape, const Matrix<Real>& per_head, const Matrix<Real>& out);

} // namespace lolcats
