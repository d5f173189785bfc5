#pragma once
/// Causal softmax attention of the frozen teacher.
#include "kernels/student_attention.hpp"

namespace lolcats {

/// y_n = sum_{i <= n} softmax_i(q_n . k_i / sqrt(d)) v_i with an online softmax over key tiles: O(T) memory.
///
/// q: [B T, H d], k and v: [B T, H_kv d], after RoPE. Writes y: [B T, H d] and log_sum: [B H, T], the logarithm of each
/// query's sum of exponentials, with which a_{n,i} = exp(q_n . k_i / sqrt(d) - log_sum_n) is found again.
template <class Real>
void softmax_attention(const AttentionShape& shape, const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v,
                       const Matrix<Real>& y, const Matrix<Real>& log_sum);

/// Overwrites `inputs` with the gradients with respect to q, k and v of a loss whose gradient with respect to y is dy:
/// [B T, H d]. Weights are found again from log_sum, tile by tile.
template <class Real>
void softmax_attention_backward(const AttentionShape& shape, const Matrix<Real>& q, const Matrix<Real>& k,
                                const Matrix<Real>& v, const Matrix<Real>& y, const Matrix<Real>& log_sum,
                                const Matrix<Real>& dy, const AttentionInputGradients<Real>& inputs);

} // namespace lolcats
