#pragma once
/// Causal softmax attention of the frozen teacher.
#include "kernels/attention_arrays.hpp"

namespace lolcats {

/// y_n = sum_{i <= n} softmax_i(q_n . k_i / sqrt(d)) v_i with an online softmax over key tiles: O(T) memory.
///
/// Writes y and log_sum, the logarithm of each query's sum of exponentials, by which weights are found again:
///
///     a_{n,i} = exp(q_n . k_i / sqrt(d) - log_sum_n)
template <class Real>
void softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                       const AttentionOutputs<Real>& outputs);

/// Overwrites `input_gradients` with those of a loss whose gradient with respect to y is dy: [B T, H d]. Weights are
/// found again from log_sum, tile by tile.
template <class Real>
void softmax_attention_backward(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                                const AttentionOutputs<Real>& outputs, const Matrix<Real>& dy,
                                const AttentionInputGradients<Real>& input_gradients);

} // namespace lolcats
