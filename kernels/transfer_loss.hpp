#pragma once
/// Losses of attention transfer (paper equations 8 and 9), on attention outputs before the output projection.
#include "kernels/student_attention.hpp"

namespace lolcats {

/// Returns sum (student - teacher)^2 and sets dy = 2 scale (student - teacher), all [B T, H d].
template <class Real>
double squared_error(const Matrix<Real>& student, const Matrix<Real>& teacher, Real scale, const Matrix<Real>& dy);

/// The same with the squares of each sequence of T rows over the mean square of its teacher, so that layers whose
/// outputs are small count as much as others: returns sum_b sum (student - teacher)^2 / m_b, m_b that mean over [T, H
/// d].
template <class Real>
double relative_squared_error(const Matrix<Real>& student, const Matrix<Real>& teacher, int length, Real scale,
                              const Matrix<Real>& dy);

/// Both at once: y and normalizer as of student_attention, then the above of y. The CUDA kernel computes the error
/// while it has y at hand.
template <class Real>
double student_squared_error(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                             const Matrix<Real>& v, const Matrix<Real>& teacher, Real scale, const Matrix<Real>& y,
                             const Matrix<Real>& normalizer, const Matrix<Real>& dy);

/// Returns the sum over queries of -sum_i a_i log max(a^_i, 1e-12), a the teacher's weights and a^ the student's, and
/// adds `scale` times its gradient to `gradients`. Streamed by tiles: O(T^2) work, O(T d') memory a head.
///
/// `log_sum` comes from softmax_attention and `normalizer` from student_attention, both [B H, T].
template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                               const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                               const Matrix<Real>& log_sum, const Matrix<Real>& normalizer, Real scale,
                               const StudentGradients<Real>& gradients);

/// The loss alone, for evaluation.
template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                               const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                               const Matrix<Real>& log_sum, const Matrix<Real>& normalizer);

/// The same among each query's far keys R: the sum over queries of -sum_{j in R} a_j log max(b_j, 1e-12) with b_j =
/// phi_q . phi_k(j) / sum_{i in R} phi_q . phi_k(i). This is the part of the whole cross-entropy that the feature maps
/// alone decide: the rest says how much all of R gets. Queries count by the teacher's mass on R.
template <class Real>
double far_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                         const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                         const Matrix<Real>& log_sum, Real scale, const StudentGradients<Real>& gradients);

template <class Real>
double far_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                         const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                         const Matrix<Real>& log_sum);

} // namespace lolcats
