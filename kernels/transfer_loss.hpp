#pragma once
/// Losses of attention transfer (paper equations 8 and 9), on attention outputs before the output projection.
#include "kernels/student_attention.hpp"

namespace lolcats {

/// Returns sum (y - teacher)^2 and sets dy = 2 scale (y - teacher).
template <class Real>
double squared_error(const Matrix<Real>& y, const SquaredError<Real>& error);

/// The same with the squares of each sequence of T rows over the mean square of its teacher, so that layers whose
/// outputs are small count as much as others. With m_b that mean over [T, H d], it returns
///
///     sum_b sum (y - teacher)^2 / m_b.
template <class Real>
double relative_squared_error(const Matrix<Real>& y, int length, const SquaredError<Real>& error);

/// Both at once: outputs as of student_attention, then squared_error of y. The CUDA kernel computes the error while it
/// has y at hand.
template <class Real>
double student_squared_error(const AttentionShape& shape, const Student<Real>& student,
                             const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                             const SquaredError<Real>& error);

/// Returns the sum over queries of -sum_i a_i log max(a^_i, 1e-12), a the teacher's weights and a^ the student's, and
/// adds `scale` times its gradient to `gradients`. Streamed by tiles: O(T^2) work, O(T d') memory a head. Values are
/// not read.
///
/// Over far keys R alone it is the sum over queries of -sum_{j in R} a_j log max(b_j, 1e-12) with
///
///     b_j = phi_q . phi_k(j) / sum_{i in R} phi_q . phi_k(i),
///
/// the part of the whole cross-entropy that the feature maps alone decide: the rest says how much all of R gets.
/// Queries then count by the teacher's mass on R.
template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const Student<Real>& student,
                               const AttentionInputs<Real>& inputs, const AttentionEntropy<Real>& entropy, Real scale,
                               const StudentGradients<Real>& gradients);

/// The loss alone, for evaluation.
template <class Real>
double attention_cross_entropy(const AttentionShape& shape, const Student<Real>& student,
                               const AttentionInputs<Real>& inputs, const AttentionEntropy<Real>& entropy);

} // namespace lolcats
