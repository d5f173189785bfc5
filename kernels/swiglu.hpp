#pragma once
/// The gated unit of the MLP: silu(gate) * up.
#include "kernels/views.hpp"

namespace lolcats {

/// up[n, F] becomes silu(gate) * up.
template <class Real>
void swiglu(const Matrix<Real>& gate, const Matrix<Real>& up);

/// Given dy[n, F], gate and up become the gradients of themselves.
template <class Real>
void swiglu_backward(const Matrix<Real>& dy, const Matrix<Real>& gate, const Matrix<Real>& up);

} // namespace lolcats
