#pragma once
/// Distillation of next-token distributions (Hinton et al., arXiv 1503.02531, at temperature 1).
#include "kernels/views.hpp"

#include <cstdint>

namespace lolcats {

/// Returns the sum over labelled rows (cross_entropy.hpp) of KL(softmax(teacher) || softmax(student)), logits of [n, V]
/// each. Where `scale` is not zero, `teacher` becomes scale times the gradient of that sum with respect to the
/// student's logits, zero in rows without a label.
template <class Real>
double divergence(const Matrix<Real>& student, const Vector<std::int32_t>& labels, Real scale,
                  const Matrix<Real>& teacher);

} // namespace lolcats
