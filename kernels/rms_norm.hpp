#pragma once
/// Root-mean-square normalisation: y = x / sqrt(mean(x^2) + eps) * weight, row by row.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"

namespace lolcats {

/// x, y: [n, D]; weight: [D]. Out: Real, or BFloat16 for a product to take.
template <class Real, class Out>
void rms_norm(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Out>& y);

/// dx = added + the gradient of x, given dy, all [n, D]; `added` may be dx itself, or have no rows for 0; dx may be x.
/// The weight is frozen.
template <class Real>
void rms_norm_backward(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& dy,
                       const Matrix<Real>& added, const Matrix<Real>& dx);

} // namespace lolcats
