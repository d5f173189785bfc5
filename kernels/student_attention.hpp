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
#include "kernels/feature_map.hpp"
#include "kernels/views.hpp"

namespace lolcats {

/// Throws Error for a name other than terrace, sliding, none.
NearKeys near_keys(const std::string& name);
const char* near_keys_name(NearKeys near);

/// Trainable parameters of one layer's student.
template <class Real>
struct StudentParameters {
    Tensor3<Real> q_map;         ///< [H, d, f]
    Tensor3<Real> k_map;         ///< [H, d, f]
    Vector<Real> q_bias;         ///< [H]; zero unless the map has a bias
    Vector<Real> k_bias;         ///< [H]
    Vector<Real> window_factors; ///< [H], g
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

/// Gradients of a loss with respect to the inputs, [B T, H d] each; those of k and v still apart by query head.
template <class Real>
struct AttentionInputGradients {
    Matrix<Real> q;
    Matrix<Real> k;
    Matrix<Real> v;
};

/// y: [B T, H d]; normalizer: [B H, T], the sum of the weights of each query.
template <class Real>
void student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameters<Real>& parameters,
                       const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v, const Matrix<Real>& y,
                       const Matrix<Real>& normalizer);

/// Adds to `gradients` those of a loss whose gradient with respect to y is dy: [B T, H d].
template <class Real>
void student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                                const Matrix<Real>& v, const Matrix<Real>& y, const Matrix<Real>& normalizer,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients);

/// The same, and overwrites `inputs` with the gradients of q, k and v, the one through the maximum c_n included.
/// Without arrays in `gradients` the parameters are frozen.
template <class Real>
void student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                                const Matrix<Real>& v, const Matrix<Real>& y, const Matrix<Real>& normalizer,
                                const Matrix<Real>& dy, const StudentGradients<Real>& gradients,
                                const AttentionInputGradients<Real>& inputs);

/// out[B T, H_kv d]: the sum over the query heads that share a key/value head of per_head[B T, H d].
template <class Real>
void sum_head_groups(const AttentionShape& shape, const Matrix<Real>& per_head, const Matrix<Real>& out);

} // namespace lolcats
