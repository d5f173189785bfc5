#pragma once
/// The gated unit of the MLP: silu(gate) * up.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"

namespace lolcats {

/// out[n, F] = silu(gate) * up; it may be up itself. Out: Real, or BFloat16 for a product to take.
template <class Real, class Out>
void swiglu(const Matrix<Real>& gate, const Matrix<Real>& up, const Matrix<Out>& out);

/// Given dy[n, F], gate and up become the gradients of themselves.
template <class Real>
void swiglu_backward(const Matrix<Real>& dy, const Matrix<Real>& gate, const Matrix<Real>& up);

} // namespace lolcats
