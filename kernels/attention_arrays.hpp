#pragma once
/// What the attention kernels read and write. kernels/cuda/attention.hpp has the same as pointers.
#include "kernels/attention_form.hpp"
#include "kernels/views.hpp"

namespace lolcats {

/// Queries, keys and values after RoPE.
template <class Real>
struct AttentionInputs {
    Matrix<Real> q; ///< [B T, H d]
    Matrix<Real> k; ///< [B T, H_kv d]
    Matrix<Real> v; ///< [B T, H_kv d]
};

/// What a forward pass writes, and the backward pass reads.
template <class Real>
struct AttentionOutputs {
    Matrix<Real> y;          ///< [B T, H d]
    Matrix<Real> statistics; ///< [B H, T] of each query: the student's normalizer, the teacher's log_sum
};

/// Gradients of a loss with respect to the inputs, [B T, H d] each; those of k and v still apart by query head.
template <class Real>
struct AttentionInputGradients {
    Matrix<Real> q;
    Matrix<Real> k;
    Matrix<Real> v;
};

/// Keys that a cross-entropy of attention weights is over.
enum class EntropyKeys {
    all,
    far ///< the student's weights of far keys are then normalised by their own sum
};

/// What the cross-entropy of the student's attention weights against the teacher's needs of the forward passes.
template <class Real>
struct AttentionEntropy {
    EntropyKeys keys;
    Matrix<Real> log_sum;    ///< [B H, T], from softmax_attention
    Matrix<Real> normalizer; ///< [B H, T], from student_attention; not read if the far keys alone count
};

/// What the transfer loss of outputs y needs besides, [B T, H d] each: it sets dy = 2 scale (y - teacher).
template <class Real>
struct SquaredError {
    Matrix<Real> teacher;
    Real scale;
    Matrix<Real> dy;
};

/// Trainable parameters of one layer's student.
template <class Real>
struct StudentParameters {
    Tensor3<Real> q_map;         ///< [H, d, f]
    Tensor3<Real> k_map;         ///< [H, d, f]
    Vector<Real> q_bias;         ///< [H]; zero unless the map has a bias
    Vector<Real> k_bias;         ///< [H]
    Vector<Real> window_factors; ///< [H], g
};

/// One layer's student.
template <class Real>
struct Student {
    StudentForm form;
    StudentParameters<Real> parameters;
};

/// One layer's gradients, kept apart by sequence so that their sum has a fixed order.
template <class Real>
struct StudentGradients {
    Matrix<Real> q_map;          ///< [B H, d f]
    Matrix<Real> k_map;          ///< [B H, d f]
    Vector<Real> q_bias;         ///< [B H]
    Vector<Real> k_bias;         ///< [B H]
    Vector<Real> window_factors; ///< [B H]

    StudentGradients() = default;
    StudentGradients(int heads, int weights);
    [[nodiscard]] bool exist() const { return q_map.extent(0) > 0; }
    void set_zero() const;
};

} // namespace lolcats
