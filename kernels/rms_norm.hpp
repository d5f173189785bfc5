#pragma once
/// Root-mean-square normalisation: y = x / sqrt(mean(x^2) + eps) * weight, row by row.
#include "kernels/views.hpp"

namespace lolcats {

/// x, y: [n, D]; weight: [D].
template <class Real>
void rms_norm(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& y);

/// Adds the gradient of x to dx, given dy, both [n, D]. The weight is frozen.
template <class Real>
void rms_norm_backward(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& dy,
                       const Matrix<Real>& dx);

} // namespace lolcats
